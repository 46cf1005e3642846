"""Synthetic apparel, drawn with OpenCV."""

"""Labelled images as people keep them: one file for each format."""

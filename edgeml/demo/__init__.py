"""A demonstration of every step on synthetic apparel."""

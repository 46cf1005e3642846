"""The labels of the apparel use case, whose folders have names such as `red_shirt`."""

from __future__ import annotations

COLOURS = ("black", "blue", "brown", "green", "pink", "red", "silver", "white", "yellow")
GARMENTS = ("dress", "hoodie", "pants", "shirt", "shoes", "shorts", "skirt", "suit")

GROUP_NAMES = ("colour", "garment")
"""The names of the two label groups, in the order of the words in a folder's name."""

"""The words of the apparel use case: what folders such as `red_shirt` are made of."""

from __future__ import annotations

COLOURS = ("black", "blue", "brown", "green", "pink", "red", "silver", "white", "yellow")
GARMENTS = ("dress", "hoodie", "pants", "shirt", "shoes", "shorts", "skirt", "suit")

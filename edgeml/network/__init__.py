"""DOOR torch: a network without its training."""

"""DOOR torch: networks without their training."""

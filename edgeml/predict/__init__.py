"""Run a model on images."""

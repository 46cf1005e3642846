"""Specs of models from other tools."""

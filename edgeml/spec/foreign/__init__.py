"""Specs of models that other tools made."""

"""How good a model is, and how far two of them disagree."""

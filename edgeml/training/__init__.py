"""DOOR torch: from labelled images to a checkpoint; start at `edgeml.training.loop.train`."""

"""DOOR torch: from labelled pictures to a checkpoint. `edgeml.training.loop.train` is the way in."""

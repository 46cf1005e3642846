"""DOOR torch: from labelled pictures to a checkpoint. `edgeml.train.loop.train` is the way in."""

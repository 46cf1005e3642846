"""From encoded bytes to the network's input."""

"""TensorRT: build engines, keep them, run them."""

"""INT8: ranges, rounding, Q/DQ nodes, and what to leave in floating point."""

"""All of edgeml on drawn apparel, in minutes."""

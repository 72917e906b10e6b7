"""One run of a model: forward and backward, by rules or by the plain gradient, and warnings about it."""

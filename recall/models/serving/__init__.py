"""Models as tables and vectors: what is left of them when they serve, in numpy alone."""

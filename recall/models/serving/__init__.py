"""Models as tables and vectors, for serving: numpy alone."""

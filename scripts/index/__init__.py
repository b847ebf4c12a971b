"""Parts of the benchmark of the index."""

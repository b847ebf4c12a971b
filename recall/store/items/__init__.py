"""Live changes of items: a log on disk, and a segment in memory that is searched beside the index."""

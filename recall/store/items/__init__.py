"""Live changes of items: a log on disk, and a segment in memory."""

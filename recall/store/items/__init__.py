"""Live changes of items: a change log, and an in-memory segment beside the index."""

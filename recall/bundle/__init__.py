"""A published model: an immutable folder of arrays and tables with a manifest."""

"""A published model: a folder of arrays and tables that never changes, described and sealed by its manifest."""

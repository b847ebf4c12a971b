"""Recommendations over HTTP: one process serves the live bundle and takes a new one without losing a request."""

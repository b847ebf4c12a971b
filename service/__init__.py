"""Recommendations over HTTP, with bundles swapped in without losing a request."""

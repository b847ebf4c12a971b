"""Metrics over the whole catalogue, their intervals, and evaluation protocols."""

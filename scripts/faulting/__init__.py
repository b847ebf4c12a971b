"""Faults that are done to the real service, and what comes of them; `faults.py` runs them and keeps the score."""

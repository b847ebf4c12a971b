"""Measurements and formulas behind docs/scale.md."""

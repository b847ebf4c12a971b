"""Implicit ALS: square loss over all pairs, by alternating conjugate gradients."""

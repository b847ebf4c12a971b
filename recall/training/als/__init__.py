"""Implicit ALS: square loss over all (context, item) pairs, by alternating conjugate gradients."""

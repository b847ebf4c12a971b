"""Factorization machines: for serving in numpy, for training in torch."""

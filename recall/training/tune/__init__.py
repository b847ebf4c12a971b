"""Hyperparameter search on the training part alone."""

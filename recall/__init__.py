"""Factorization-machine recall: train on interactions and features, export exact vectors, serve the top n."""

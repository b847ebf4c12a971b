"""Parts of benchmark_training.py."""

"""The parts of benchmark_training.py."""

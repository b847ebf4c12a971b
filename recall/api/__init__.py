"""Fit, load and ask a model in a few lines of Python.

Tables are frames of pandas, polars or Arrow, or paths; answers are frames. The command line uses the same functions.
"""

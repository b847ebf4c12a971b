"""Fit, load and ask a model in a few lines of Python.

Tables go in as frames of pandas, polars or Arrow, or as paths; answers come out as frames. The command line does the same
work with the same functions.
"""

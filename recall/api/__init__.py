"""Fit, load and ask a model in a few lines of Python, with the same functions as the command line.

Tables go in as frames of pandas, polars or Arrow, or as paths; answers come out as frames.
"""

"""Fit, load and ask a model in a few lines, as the command line does.

Tables go in as frames of pandas, polars or Arrow, or as paths; answers come out as frames.
"""

"""Filters: predicates over the columns of a catalogue, compiled to row bitmaps.

`parse` reads predicates from a request, `Attributes.select` turns one into a bitmap of rows, and `Attributes.over` does the
same for further items that are read like those of the catalogue.
"""

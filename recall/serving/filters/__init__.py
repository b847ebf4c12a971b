"""Which items may be recommended: predicates over the columns of a catalogue, made into selections of its rows.

`parse` makes predicates of what a request gives, `Attributes.select` makes a selection of a predicate, and
`Attributes.over` does the same for further items that are read as the catalogue's own are.
"""

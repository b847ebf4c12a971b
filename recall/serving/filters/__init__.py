"""Filters: parse -> compile -> plan -> columns.

`docs/development/follow-a-filter.md` follows one filter through these modules.
"""

"""Rules that shape a list after the search: quotas, duplicates, diversity, pins; small steps in the order they are given."""

"""Models that score a user against an item."""

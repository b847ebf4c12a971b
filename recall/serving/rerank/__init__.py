"""Answers that are more than the best items by score: boosts, channels and rules over one catalogue."""

"""Re-ranking: boosts, channels and rules over one catalogue."""

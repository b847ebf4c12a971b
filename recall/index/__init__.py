"""Search for the items whose vectors have the largest inner product with a user's vector."""

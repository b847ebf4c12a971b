"""How good the lists are: metrics over the whole catalogue, their intervals, and the protocols they are read under."""

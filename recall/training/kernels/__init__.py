"""The inner loops of the whole-catalogue solver: compiled where numba is installed, torch's own sparse products elsewhere."""

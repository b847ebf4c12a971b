"""The inner loops of the whole-catalogue solver: compiled by numba."""

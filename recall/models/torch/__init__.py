"""Models as torch modules, for training."""

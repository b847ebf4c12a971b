"""Users: those of a bundle, and their live changes."""

"""Shows that a refactoring changes nothing: records what the package does, and compares it with a later tree, bit for bit."""

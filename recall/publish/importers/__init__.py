"""Models of other programs as bundles: one module for each format."""

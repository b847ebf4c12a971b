"""Models that other programs have trained, as bundles: one module for each form in which they come."""

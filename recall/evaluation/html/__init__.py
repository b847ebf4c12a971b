"""Reports of bundles: one self-contained HTML file each."""

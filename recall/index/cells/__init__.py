"""The cells engine: 8-bit codes in cells, searched by upper bounds."""

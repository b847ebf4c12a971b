"""Rules that turn gradients into steps, each touching only the rows that a batch has used."""

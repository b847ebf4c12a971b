"""Why an item scores what it does, and why it is not in a list."""

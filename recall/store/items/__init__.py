"""Changes to the catalogue while it is being served: written to a journal first, searched from memory beside the index."""

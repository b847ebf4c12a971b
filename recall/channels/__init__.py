"""Lists that are merged with the model's own: what is popular, what is new, what the request brings."""

"""What gradient learning makes small. An objective sees vectors and knows nothing of the model that gave them."""

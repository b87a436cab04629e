"""The conversation: items, what the model is given of them, and how turns are stored."""

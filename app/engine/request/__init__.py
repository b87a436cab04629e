"""The request: checked, its tools, its schemas, and what the response repeats of it."""

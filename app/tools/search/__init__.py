"""Web search: one module per provider."""

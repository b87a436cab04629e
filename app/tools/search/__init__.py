"""Search of the web: one module per provider."""

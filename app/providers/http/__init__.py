"""The HTTP client of the generation path."""

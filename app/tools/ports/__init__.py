"""The ports, one in a file."""

"""The client of the sandbox service."""

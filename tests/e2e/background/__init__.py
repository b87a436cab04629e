"""Responses that are generated in the background."""

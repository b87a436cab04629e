"""Uploaded files and vector stores."""

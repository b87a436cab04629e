"""The built-in tools: the port in `base.py`, one file per tool."""

"""The store port and its backends: responses and API keys."""

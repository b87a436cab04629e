"""HTTP connections: their limits, and how a response is written."""

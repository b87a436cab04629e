"""Built-in tools in a response: which are offered, their calls, native ones, citations."""

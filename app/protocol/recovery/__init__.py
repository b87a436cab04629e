"""What models really write: calls in their text, arguments that are not quite JSON, thinking in tags."""

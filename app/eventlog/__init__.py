"""The event-log port and its backends: the frames of live runs."""

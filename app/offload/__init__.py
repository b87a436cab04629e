"""Runs work in other processes: what would block the event loop, or could crash on hostile input."""

"""Work for another process: what would hold up the event loop, or could crash on hostile input."""

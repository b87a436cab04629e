"""A response under way: its run, the loop of turns and tools, and whoever follows it."""

"""Use cases: the only package that awaits more than one port."""

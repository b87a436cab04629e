"""Guarded access to addresses that models, pages and requests name."""

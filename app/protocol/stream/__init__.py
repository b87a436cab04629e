"""Deltas to events and items, and events again from what is stored."""

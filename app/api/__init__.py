"""HTTP only: parse, one service call, render."""

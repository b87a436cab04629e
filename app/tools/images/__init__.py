"""Image search: the engines, the check of their results, and the comparison of pictures."""

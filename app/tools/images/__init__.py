"""Image search: the engines, the check of what they find, and the comparison of pictures."""

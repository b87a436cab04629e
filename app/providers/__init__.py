"""The upstream port and one file per vendor."""

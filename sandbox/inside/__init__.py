"""What runs inside a sandbox: the standard library, the data packages, and nothing of ours but these files."""

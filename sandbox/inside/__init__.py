"""What runs inside a sandbox: the standard library, the data packages, and of this project only these files."""

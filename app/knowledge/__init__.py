"""Uploaded files and vector stores: the ports in `base.py`, one file per adapter."""

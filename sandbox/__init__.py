"""The service that runs untrusted code: a program of its own (`python -m sandbox`), which the gateway speaks to over HTTP."""

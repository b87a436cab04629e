"""The service that runs untrusted code: a separate program (`python -m sandbox`), which the gateway calls over
HTTP.
"""

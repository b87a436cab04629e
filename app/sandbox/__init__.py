"""The service that runs untrusted code: a separate program (`python -m app.sandbox`), which the gateway calls over
HTTP.
"""

"""The log and the numbers behind the metrics. Imports nothing else from the gateway."""

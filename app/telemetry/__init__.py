"""What operators see: the log and the numbers behind the metrics. Imports nothing of the gateway."""

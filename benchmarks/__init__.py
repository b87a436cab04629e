"""Side-by-side measurements of the gateway; see docs/benchmarks.md."""

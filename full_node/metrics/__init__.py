"""What a running node counts, for Prometheus: see docs/operating/metrics.md."""

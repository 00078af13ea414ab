"""Measures an endpoint: throughput against latency, over batch sizes, requests in flight and arrival rates."""

"""Prometheus metrics of the loop and of side effects."""

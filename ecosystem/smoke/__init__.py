"""Smoke test of a running system: an order's whole way, and the pages around it, as a user sees them from outside."""

"""Monitoring: totals over all products."""

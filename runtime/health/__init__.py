"""Stall detection: partitions, commits and event loops that make no progress."""

"""Stall detection: partitions, rebalances and event loops that make no progress."""

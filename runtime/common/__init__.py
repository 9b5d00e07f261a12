"""What the runtime needs everywhere and what needs nothing of it: clock, backoff, settings, partitioning."""

"""What every other package uses: clock, backoff, settings, partitioning, logging."""

"""The worker, assembled from its parts, and the process that runs it."""

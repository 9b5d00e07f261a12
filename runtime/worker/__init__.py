"""A worker assembled from its parts, and the process that it runs in."""

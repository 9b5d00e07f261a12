"""A worker put together from its parts, and the process that it runs in."""

"""The HTTP side of a worker: its server, its operational routes, and the way to the worker that owns a key."""

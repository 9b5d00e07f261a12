"""The processing loop of a worker: exactly what the simulation runs."""

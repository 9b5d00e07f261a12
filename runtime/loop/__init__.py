"""The processing loop of a worker and all that it drives: exactly what the simulation runs."""

"""The processing loop of a worker: poll, process, commit, apply. The simulation runs this code."""

"""Lists the workers of `orders up` for Prometheus (`monitoring/prometheus.local.yml`)."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ecosystem.cli.up.layout import PlannedWorker

FILE = "prometheus-targets.json"
"""In the folder of data."""


@contextmanager
def listed(workers: Sequence[PlannedWorker], folder: Path) -> Iterator[Path]:
    """Keeps the file for as long as the `with` block lasts: the format is that of `file_sd_configs`."""
    path = folder / FILE
    targets = [{"targets": [f"127.0.0.1:{w.port}"], "labels": {"worker": w.name}} for w in workers]
    complete = path.with_suffix(".new")
    complete.write_text(json.dumps(targets, indent=1))
    complete.replace(path)  # atomic: Prometheus reads it whenever it changes
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)

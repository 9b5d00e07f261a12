"""Space of the file system of a state directory."""

import shutil
from pathlib import Path

from runtime.metrics.worker import DiskSpace


def disk_space(folder: Path) -> DiskSpace | None:
    """Free space and size of the file system of a folder; `None` if it cannot be read."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return DiskSpace(usage.free, usage.total)

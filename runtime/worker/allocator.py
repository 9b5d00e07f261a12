"""Memory that the worker has freed goes back to the system.

glibc maps large blocks on their own, and unmaps them when they are freed. But each time, it raises the size from which
it does so to that of the freed block, up to 32 MiB (`mallopt(3)`: the "dynamic mmap threshold"). From then on, write
buffers of RocksDB and batches come from the heap, with small blocks between them, and the heap grows. A fixed size
switches that off.
"""

import ctypes
import logging
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of `malloc.h`."""

LIMIT = 128 * 1024
"""Bytes from which a block is mapped on its own, and that may be free at the end of the heap, as glibc starts with."""

log = logging.getLogger(__name__)


def return_freed_memory() -> bool:
    """Fixes glibc's limits. Returns whether it did: not with another C library, nor if the environment sets them."""
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # macOS and musl have none
    fixed = mallopt is not None and all(mallopt(option, LIMIT) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
    log.debug("limits of malloc fixed=%s", fixed)
    return fixed

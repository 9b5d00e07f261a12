"""Python's search for cyclic garbage, as it suits a worker: much stays for good, and next to nothing goes in cycles.

A full search looks at every object there is, and everything waits for it.
"""

import gc
import logging

log = logging.getLogger(__name__)

YOUNG = 10_000
"""Objects that have come and not gone before the youngest are searched. With Python's 700 every batch of the loop is,
and what is under way ages until a full search falls due."""


def freeze_startup_objects() -> None:
    """Leaves out of all later searches what is there now: modules, models, routes, clients. For a process, once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    log.debug("garbage collection spared objects=%d", gc.get_freeze_count())

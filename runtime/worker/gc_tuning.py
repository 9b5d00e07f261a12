"""Garbage collection of a worker: start-up objects are frozen, young ones are collected less often.

A full collection looks at every object and stops the event loop meanwhile. A worker has many objects that stay for
good, and makes hardly any cycles.
"""

import gc
import logging

log = logging.getLogger(__name__)

YOUNG = 40_000
"""Objects, the threshold of the youngest generation. With Python's 700 every batch triggers a collection, and objects
in use age until a full collection is due."""


def freeze_startup_objects() -> None:
    """Freezes modules, models, routes and clients out of later collections. Called once, after the start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    log.debug("start-up objects frozen objects=%d", gc.get_freeze_count())

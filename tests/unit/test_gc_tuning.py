"""What a worker holds for good is not searched for garbage; what comes later is."""

import gc
import subprocess
import sys
import textwrap
import weakref

import pytest

from runtime.worker import gc_tuning


@pytest.fixture(autouse=True)
def as_before():
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class Node:
    def __init__(self):
        self.me = self


def searched(thing):
    return any(one is thing for one in gc.get_objects())


def test_what_is_there_is_left_out_of_searches_and_what_comes_later_is_not():
    stays = Node()
    assert searched(stays)
    gc_tuning.freeze_startup_objects()
    later = Node()
    assert not searched(stays)
    assert searched(later)


def test_a_cycle_that_goes_later_is_found():
    gc_tuning.freeze_startup_objects()
    gone = weakref.ref(Node())
    gc.collect()
    assert gone() is None


def test_a_cycle_that_has_gone_already_is_not_kept_for_good():
    gone = weakref.ref(Node())
    gc_tuning.freeze_startup_objects()
    assert gone() is None


def test_the_youngest_are_searched_less_often_and_the_oldest_as_ever():
    _, middle, oldest = gc.get_threshold()
    gc_tuning.freeze_startup_objects()
    assert gc.get_threshold() == (gc_tuning.YOUNG, middle, oldest)


def test_a_process_spares_what_its_worker_holds_once_that_has_started():
    script = textwrap.dedent("""
        import asyncio, gc
        from runtime.worker import process
        from runtime.common.settings import Settings

        class Worker:
            failure = None

            def __init__(self, hosted, settings):
                self.started = asyncio.Event()

            async def start(self):
                self.clients = ["a client"]
                self.started.set()

            async def ended(self):
                await self.started.wait()
                while not gc.get_freeze_count():
                    await asyncio.sleep(0.01)

            async def stop(self):
                print("searched" if any(one is self.clients for one in gc.get_objects()) else "spared")

        process.Worker = Worker
        raise SystemExit(process.run([], Settings()))
    """)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "spared"), ended.stderr

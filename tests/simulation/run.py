"""Runs many seeds and lists those that fail. The first is shrunk to a short trace that can be replayed.

python -m tests.simulation.run --seeds 10000
python -m tests.simulation.run --replay 4711 --guarantee exactly_once
"""

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from contextlib import nullcontext
from functools import partial

from tests.simulation import cancelling_bugs, replaying_bugs  # noqa: F401  these register their bugs
from tests.simulation.bugs import PLANTED
from tests.simulation.invariants import violations
from tests.simulation.schedule import draw
from tests.simulation.shrink import outcome, shrink
from tests.simulation.world import World

GUARANTEES = ("exactly_once", "at_least_once")
CHUNK = 20


def run_seeds(seeds, *, exactly_once):
    """Runs seeds one after the other. Returns violations by seed, and counts of events."""
    failed, counts = {}, Counter()
    for seed in seeds:
        world = World(draw(seed, exactly_once=exactly_once))
        try:
            found = violations(world.run())
        except Exception as error:  # any exception is reported with its seed
            found = [f"{type(error).__name__}: {error}"]
        if found:
            failed[seed] = found
        counts.update({f"fault: {name}": count for name, count in world.faults.items()})
        counts.update(
            {
                "orders": len(world.orders),
                "acknowledged": len(world.acknowledged),
                "requests": world.network.requests,
                "attempts of failed orders": world.redecided,
                "replayed records": world.resent,
                "rebalances": sum(group.generation for group in world.broker.groups.values()),
                "processes": sum(worker.starts for worker in world.workers),
                "workers that ended by themselves": len(world.failures),
            }
        )
    return failed, counts


def run_many(first, count, *, exactly_once, processes=None, tell=None):
    """Runs `count` seeds from `first` on in several processes. Returns the same as `run_seeds`."""
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    failed, counts = {}, Counter()
    with multiprocessing.get_context("fork").Pool(processes or os.cpu_count(), _quiet) as pool:
        for n, (failures, counted) in enumerate(
            pool.imap_unordered(partial(run_seeds, exactly_once=exactly_once), chunks)
        ):
            failed |= failures
            counts.update(counted)
            if tell is not None:
                tell(min(count, (n + 1) * CHUNK), failed)
    return failed, counts


def explain(seed, *, exactly_once, bug=None):
    """The shortest trace found for a failing seed, as text."""
    schedule = shrink(draw(seed, exactly_once=exactly_once))
    lines = []
    found = outcome(schedule, lambda at, who, what: lines.append(f"{at:9.4f}  {who:<12} {what}"))
    workers = ", ".join("+".join(schedule.groups[group]) for group, _ in schedule.workers)
    header = [
        *(f"violation: {sentence}" for sentence in found),
        f"workers: {workers}",
        f"deadline {schedule.deadline_s:g} s, batches of {schedule.batch_limit}, weather {schedule.seed}",
        "what happens:",
        *(f"  {event}" for event in schedule.events),
        "trace:",
    ]
    guarantee = GUARANTEES[0] if exactly_once else GUARANTEES[1]
    planted = f" --plant {bug}" if bug else ""
    replay = f"replay: python -m tests.simulation.run --replay {seed} --guarantee {guarantee}{planted}"
    return "\n".join([*header, *lines, replay])


def main():
    arguments = _arguments()
    _quiet()
    plant = PLANTED[arguments.plant].plant() if arguments.plant else nullcontext()
    with plant:
        if arguments.replay is not None:
            guarantee = arguments.guarantee or GUARANTEES[0]
            print(explain(arguments.replay, exactly_once=guarantee == GUARANTEES[0], bug=arguments.plant))
            return 0
        wanted = (arguments.guarantee,) if arguments.guarantee else GUARANTEES
        return max([_simulate(arguments, guarantee) for guarantee in wanted])


def _simulate(arguments, guarantee):
    exactly_once, start = guarantee == GUARANTEES[0], time.monotonic()

    def tell(done, failed):
        if sys.stderr.isatty():
            print(f"\r{guarantee}: {done} of {arguments.seeds} seeds, {len(failed)} failed", end="", file=sys.stderr)

    failed, counts = run_many(
        arguments.first, arguments.seeds, exactly_once=exactly_once, processes=arguments.processes, tell=tell
    )
    seconds = time.monotonic() - start
    if sys.stderr.isatty():
        print(file=sys.stderr)
    rate = arguments.seeds / seconds
    print(f"{guarantee}: {arguments.seeds} seeds in {seconds:.0f} s ({rate:.1f}/s), {len(failed)} failed")
    for name, count in sorted(counts.items()):
        print(f"  {name:<34} {count:>9,}")
    for seed, found in sorted(failed.items())[:20]:
        print(f"seed {seed}: {'; '.join(found[:3])}")
    if failed:
        print(explain(min(failed), exactly_once=exactly_once, bug=arguments.plant))
    return 1 if failed else 0


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many, of each guarantee")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--guarantee", choices=GUARANTEES, help="only this one")
    parser.add_argument("--processes", type=int, help="as many as there are cores by default")
    parser.add_argument("--replay", type=int, metavar="SEED", help="cut a failing seed down, and show its trace")
    parser.add_argument("--plant", choices=sorted(PLANTED), help="plant this bug first")
    return parser.parse_args()


def _quiet():
    """Silences the logs of simulated workers."""
    logging.disable(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())

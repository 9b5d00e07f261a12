"""Inputs lose unread records: each record is processed, or is in exactly one range that is reported lost."""

import asyncio
import itertools
from collections import defaultdict
from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest

from runtime.loop.process import BatchProcessor
from runtime.model.dead_letters import LOST_UNTIL
from runtime.model.records import CONSUMED_BY, TopicPartition
from runtime.state.restore import Restorer
from schemas.topics import DEAD_LETTERS
from tests.simulation import newcomer
from tests.simulation.group import Group
from tests.simulation.schedule import LAST_FAULT_S, Event, draw
from tests.simulation.world import World

SEEDS = 60


class Losing(World):
    """A world that is settled once all records are processed, even if orders are open."""

    def _open(self):
        return False


def lossy(seed, *, exactly_once):
    """The schedule of a seed, with lost input records added."""
    random = Random(f"{seed} {exactly_once} lost")
    schedule = draw(seed, exactly_once=exactly_once)
    topics = sorted({"orders", "order-validations", "warehouse-inventory", "fraud-orders-by-customer"})
    removals = [
        Event(
            random.uniform(1, LAST_FAULT_S), "remove", name=random.choice(topics), quantity=random.choice((0, 0, 1, 3))
        )
        for _ in range(6)
    ]
    return replace(schedule, events=tuple(sorted((*schedule.events, *removals), key=lambda event: event.at)))


def run(seed, *, exactly_once):
    """Runs a seed. Returns the world, and the processed offsets by group and partition.

    `world.begun`: where the log of a partition began when a group first committed an offset of it. Before that, nothing
    says what the group has read: it starts at the beginning of the log.
    """
    seen, begun = defaultdict(set), {}
    process, recorded = BatchProcessor.process, Group._recorded

    def noted(self, polled, *arguments):
        for record in polled.records:
            if record.unreadable is None:
                seen[self.topology.group, record.topic, record.partition].add(record.offset)
        return process(self, polled, *arguments)

    def commits(self, offsets):
        for tp in offsets:
            begun.setdefault((self.name, tp), self._broker.log(tp).start)
        return recorded(self, offsets)

    with patch.object(BatchProcessor, "process", noted), patch.object(Group, "_recorded", commits):
        world = Losing(lossy(seed, exactly_once=exactly_once)).run()
    world.begun = begun
    return world, seen


def faults(world, seen):
    """Yields the violations: records skipped silently, ranges reported twice or overlapping."""
    if not world.settled:
        yield "the world has not come to rest"
    for topology in {topology.group: topology for topology in world.topologies}.values():
        for topic in topology.consumed:
            for log in world.broker.topic(topic):
                yield from _of_log(world, topology, log, seen[topology.group, topic, log.partition])


def _of_log(world, topology, log, seen):
    ranges = sorted(told(world, topology, log))
    where = f"{log.topic}[{log.partition}] of {topology.group}"
    committed = world.broker.group(topology.group).offset((log.topic, log.partition)) or 0
    begun = world.begun.get((topology.group, TopicPartition(log.topic, log.partition)), 0)
    for entry in log.committed():
        if entry.offset < begun:
            continue
        told_lost = any(first <= entry.offset < end for first, end in ranges)
        marked = (CONSUMED_BY, topology.group.encode()) in entry.headers
        if entry.offset < committed and entry.offset not in seen and not marked and not told_lost:
            yield f"{where}: {entry.offset} was passed over"
    if world.schedule.exactly_once:
        by_group = sorted(told(world, topology, log, joined=()))  # what a joined service lost may overlap
        for (_, end), (first, _) in itertools.pairwise(by_group):
            if first < end:
                yield f"{where}: {first} is told to be lost twice"


def told(world, topology, log, joined=(newcomer.NAME,)):
    """The ranges of a log that a group has reported lost, also together with services that joined it."""
    readers = {service.name for service in topology.services}
    for letters in world.broker.topic(log.topic + DEAD_LETTERS):
        for entry in letters.committed() if letters.partition == log.partition else ():
            headers = dict(entry.headers)
            tellers = set(headers.get("service", b"").decode().split(",")).difference(joined)
            if LOST_UNTIL in headers and tellers and tellers <= readers:
                yield int(headers["offset"]), int(headers[LOST_UNTIL])


@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly_once", "at_least_once"])
def test_each_record_is_processed_or_reported_lost_once(exactly_once):
    ranges = 0
    for seed in range(SEEDS):
        world, seen = run(seed, exactly_once=exactly_once)
        assert not list(faults(world, seen)), f"seed {seed}"
        for topology in {topology.group: topology for topology in world.topologies}.values():
            ranges += sum(
                len(list(told(world, topology, log)))
                for topic in topology.consumed
                for log in world.broker.topic(topic)
            )
    assert ranges > SEEDS / 4, "or nothing is lost at all"


def test_silently_skipped_records_are_found():
    async def silently(self, partitions):
        commits, starts = await asyncio.gather(
            self._broker.stable_commits(partitions), self._broker.log_starts(partitions)
        )
        return {tp: max(commits[tp].offset if commits[tp] else 0, starts[tp]) for tp in partitions}

    with patch.object(Restorer, "committed", silently):
        assert any(list(faults(*run(seed, exactly_once=True))) for seed in range(SEEDS))


def test_losses_reported_outside_their_batch_are_found():
    """As if the dead letter were written whenever the loss is detected, outside the batch."""
    from runtime.data_loss.losses import LossReporter

    report = LossReporter.report
    everything = defaultdict(list)

    def again(self, topic, partition, first, end, where, cause):
        everything[topic, partition].append((first, end))
        return report(self, topic, partition, first, end, where, cause)

    twice = []
    with patch.object(LossReporter, "report", again):
        for seed in range(SEEDS):
            everything.clear()
            run(seed, exactly_once=True)
            twice += [found for found in everything.values() if len(set(found)) < len(found)]
    assert twice, "a loss is found again after a batch that failed, or a crash"

"""Prepares a replay, and sends it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from ecosystem import services
from ecosystem.clients.backlog.unprocessed import UnprocessedReader
from ecosystem.clients.pace import Pace
from ecosystem.replay import database, ordering
from ecosystem.replay.plan import AmbiguousPlace, Plan, PlannedRecord
from ecosystem.replay.resume import ResumeError, ResumeFile
from ecosystem.replay.selecting import LeftOut, Selector
from ecosystem.replay.selection import Selection
from ecosystem.replay.sending import Sender, Sent
from ecosystem.replay.settling import NotSettled, Settling
from ecosystem.replay.target import Target, TargetError, find_target, sent_of, set_already
from runtime.common.clock import utc_now
from runtime.common.settings import Settings

EXPECTED = (database.NoHistory, *database.ERRORS, AmbiguousPlace, ResumeError, TargetError, NotSettled)
"""What can go wrong, with texts for people."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is done now, how much of it, and of how much."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan that can be sent.

    Arguments:
        plan: the records.
        target: where to.
        topics: that are sent to.
        left_out: what was asked for, and is not in the plan.
        sent_before: records that an earlier run has sent.
        obstacle: why it must not be sent unless the user insists; `None` if there is nothing.
        unproven: whether the order of processing is that of the timestamps alone, and why.
        lag_s: seconds by which the history may be behind: newer records are not in the plan. `None`: unknown.
    """

    plan: Plan
    target: Target
    topics: Sequence[str]
    left_out: LeftOut
    sent_before: int = 0
    obstacle: str | None = None
    unproven: str | None = None
    lag_s: float | None = 0.0


async def prepare(
    selection: Selection,
    settings: Settings,
    url: str,
    plan: Plan,
    resume: ResumeFile | None,
    folder: Path,
    progress: Progress,
) -> Prepared:
    """Fills a plan from the history, and checks the target. Raises one of `EXPECTED`.

    Arguments:
        selection: what is replayed.
        settings: brokers and prefix of the target.
        url: database of the history.
        plan: is filled.
        resume: what was sent before.
        folder: for temporary files.
        progress: of the reading.
    """
    read = 0

    def count(records: int) -> None:
        nonlocal read
        read += records
        progress("reading", read, None)

    async with database.opened(url) as reader:
        sources, lag_s = await reader.partitions(), await reader.lag_s()
        left_out = await Selector(reader, selection, plan, utc_now, count).run()
    plan.complete()
    target = await find_target(settings, plan.topics(), sources)
    if resume is not None:
        if resume.doubtful.replays:
            progress("looking what was sent", 0, None)
            resume.end(await sent_of(target, resume.doubtful))
        plan.exclude(resume.sent)
    obstacle = None
    if resume is None or not resume.resumed:
        obstacle = await set_already(target, {part.topic: part.stage for part in plan.parts()})
    unproven = None
    if selection.in_order:
        unproven = await ordering.order(plan, url, selection.filters.before, folder, progress)
    sent_before = 0 if resume is None else len(resume.sent)
    return Prepared(plan, target, plan.topics(), left_out, sent_before, obstacle, unproven, lag_s)


async def send(
    prepared: Prepared,
    selection: Selection,
    pace: Pace,
    resume: ResumeFile | None,
    stop: asyncio.Event,
    progress: Progress,
    sent: Sent,
) -> bool:
    """Sends a plan. Returns whether all of it was sent. Raises `KafkaError`, or one of `EXPECTED`.

    Arguments:
        prepared: the plan.
        selection: how it is sent.
        pace: the rate.
        resume: notes what is sent.
        stop: ends it after the present batch.
        progress: of the sending.
        sent: tells what became of the records, however this ends.
    """
    total = prepared.plan.total
    async with AsyncExitStack() as stack:
        settling = None
        if selection.in_order:
            settling = await _settling(prepared, stack, stop, lambda text: progress(text, sent.records, total))
        marks = selection.side_effects
        sender = Sender(prepared.target, prepared.topics, side_effects=marks, resume=resume, sent=sent)
        await stack.enter_async_context(sender)
        for wave, batches in _waves(prepared.plan.records(), pace.batch):
            if settling is not None and not await settling.wait():
                return False
            for batch in batches:
                await pace.wait(len(batch))
                if stop.is_set():
                    return False
                await sender.send(batch)
                doing = f"sending wave {wave}" if settling else "sending"
                progress(doing, sent.records + len(sent.refused), total)
        return settling is None or await settling.wait()


async def _settling(
    prepared: Prepared, stack: AsyncExitStack, stop: asyncio.Event, tell: Callable[[str], None]
) -> Settling:
    settings = prepared.target.settings
    reader = UnprocessedReader(settings, services.build_all(settings))
    await stack.enter_async_context(reader)
    started = (await reader.read()).started
    if not any(started & reader.readers(topic) for topic in prepared.topics):
        raise TargetError(
            f"nobody has ever read {', '.join(prepared.topics)} at {settings.kafka_bootstrap_servers}, and --in-order "
            "waits for what each wave changes: start the workers first"
        )
    return Settling(reader, stop.is_set, lambda behind: tell(f"waiting for {', '.join(behind) or 'a transaction'}"))


def _waves(records: Iterator[PlannedRecord], size: int) -> Iterator[tuple[int, Iterator[list[PlannedRecord]]]]:
    for wave, together in groupby(records, key=lambda planned: planned.wave):
        yield wave, _batches(together, size)


def _batches(records: Iterator[PlannedRecord], size: int) -> Iterator[list[PlannedRecord]]:
    while batch := list(islice(records, size)):
        yield batch

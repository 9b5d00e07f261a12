"""The audit from end to end: find the ends, read, sort, judge."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from ecosystem.audit import orders, products
from ecosystem.audit.facts import TOPICS, Fact, Source
from ecosystem.audit.read import Topics
from ecosystem.audit.report import AuditError, Report, Rules
from ecosystem.audit.sort import Sorted
from runtime.settings import Guarantee, Settings
from schemas.messages import CheckType

GRACE = timedelta(seconds=30)
"""A crashed worker's partitions are idle for a session and a takeover; what is due meanwhile comes that much later."""

PATIENCE = timedelta(minutes=2)
"""A broker ends an abandoned transaction after its time limit, 10 s here by default, and its next look."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""

_BREATH = 500


async def audit(
    settings: Settings,
    *,
    since: datetime | None = None,
    guarantee: Guarantee | None = None,
    grace: timedelta = GRACE,
    patience: timedelta = PATIENCE,
    kept: int = 100,
    folder: Path | None = None,
    progress: Progress = lambda doing, done, of: None,
) -> Report:
    """Proves or disproves that every acknowledged order reaches one final state, and that its stock adds up.

    Reads what is committed, up to the ends the topics have now; nothing is written to Kafka and no group is joined.
    Memory is bounded, whatever the history; what was read is sorted on disk.

    Arguments:
        settings: those of the workers: broker, prefix, required checks.
        since: only orders posted from then on.
        guarantee: what to hold the services to; by default what `settings` say.
        grace: how late something may be before it counts as missing.
        patience: how long to wait for a transaction that is open.
        kept: violations of a kind that are kept with their records; all of them are counted.
        folder: where the temporary files go; by default the system's place for them.
        progress: told how far it is.

    Raises:
        AuditError: it could not be done.
        aiokafka.errors.KafkaError: the broker does not answer.
    """
    guarantee = guarantee or settings.processing_guarantee
    try:
        required = frozenset(CheckType(check) for check in settings.required_checks)
    except ValueError as error:
        raise AuditError(f"REQUIRED_CHECKS: {error}, there are {', '.join(CheckType)}") from error
    began = datetime.now(UTC)
    report = Report(kept)
    progress("finding the ends", 0, 1)
    async with Topics(settings, guarantee, since, patience) as topics:
        with Sorted(folder) as facts:
            await _read(topics, facts, progress)
            rules = Rules(
                required=required,
                deadline=timedelta(seconds=settings.validation_deadline_s),
                grace=grace,
                exactly_once=guarantee is Guarantee.EXACTLY_ONCE,
                now_ms=int(began.timestamp() * 1000),
                partial=not topics.whole(Source.ORDERS),
                verdicts_from_ms=topics.read_from_ms(Source.VERDICTS),
                seen=frozenset(topics.sources),
            )
            await judge(facts, rules, report, progress)
    report.counts["unreadable"] += topics.unreadable
    report.missing = tuple(name for source, name in TOPICS.items() if source not in topics.sources)
    return report


async def _read(topics: Topics, facts: Sorted, progress: Progress) -> None:
    size, done = topics.size, 0
    for source in topics.sources:

        def advanced(by: int, source: Source = source) -> None:
            nonlocal done
            done += by
            progress(f"reading {TOPICS[source]}", done, size)

        async for key, fact in topics.records(source, advanced):
            facts.add(key, fact)


async def judge(facts: Sorted, rules: Rules, report: Report, progress: Progress = lambda doing, done, of: None) -> None:
    """Judges every order, then every product, of which there are facts."""
    size, done = facts.count, 0

    def changed(product: str, fact: Fact, by: int) -> None:
        facts.add(product.encode(), fact._replace(source=Source.HELD, value=b"%d" % by))

    for number, (order_id, of_order) in enumerate(facts.orders()):
        for violation in orders.judge(order_id, of_order, rules, report.counts, changed):
            report.add(violation)
        done += len(of_order)
        if number % _BREATH == 0:
            progress("judging orders", done, size)
            await asyncio.sleep(0)
    if not {Source.STOCK, Source.RESERVATIONS} <= rules.seen:
        return
    for product in facts.products():
        of: Callable[[Source], Iterator[Fact]] = partial(facts.of_product, product)
        streams = of(Source.WAREHOUSE), of(Source.STOCK), of(Source.HELD)
        for violation in products.judge(product, *streams, rules, report.counts):
            report.add(violation)
        await asyncio.sleep(0)
    progress("judging orders", size, size)

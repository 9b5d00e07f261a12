"""The audit from end to end: find the ends, read, sort, judge."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from ecosystem.audit.facts import CORE, SERVICES, TOPICS, Fact, Source
from ecosystem.audit.judging import lost, notices, orders, products, stock
from ecosystem.audit.judging.totals import Sums
from ecosystem.audit.reading import database, maildir
from ecosystem.audit.reading.fact_store import Sorted
from ecosystem.audit.reading.topics import Topics
from ecosystem.audit.report import AuditError, Kind, Report, Rules, Violation
from runtime.common.settings import Guarantee, Settings
from schemas.messages import CheckType, Need

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
    mail: Path | None = None,
    progress: Progress = lambda doing, done, of: None,
) -> Report:
    """Proves or disproves that every acknowledged order reaches one final state, that its stock adds up, and that what
    follows from it (shipment, check-ins, letters) comes once.

    Reads what is committed, up to the ends the topics have now; nothing is written and no group is joined.
    Memory is bounded, whatever the history; what was read is sorted on disk.

    Arguments:
        settings: those of the workers: broker, prefix, required checks; and databases of services, of which those are
            read that are named.
        since: only orders posted from then on.
        guarantee: what to hold the services to; by default what `settings` say.
        grace: how late something may be before it counts as missing.
        patience: how long to wait for a transaction that is open.
        kept: violations of a kind that are kept with their records; all of them are counted.
        folder: where the temporary files go; by default the system's place for them.
        mail: a Maildir with all letters that were delivered.
        progress: told how far it is.

    Raises:
        AuditError: it could not be done.
        aiokafka.errors.KafkaError: the broker does not answer.
    """
    guarantee = guarantee or settings.processing_guarantee
    try:
        required = frozenset(CheckType(check) for check in settings.required_checks)
        needs = tuple(Need(need) for need in settings.fulfilment_needs)
    except ValueError as error:
        known = f"there are {', '.join(CheckType)} and {', '.join(Need)}"
        raise AuditError(f"REQUIRED_CHECKS or FULFILMENT_NEEDS: {error}, {known}") from error
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    report = Report(kept, settings.currency)
    databases = _databases(settings)
    with Sorted(folder) as facts:
        progress("reading databases", 0, 1)
        for one in databases:
            await _read_rows(one, one.before, facts)
        progress("finding the ends", 0, 1)
        async with Topics(settings, guarantee, since, patience) as topics:
            await _read(topics, facts, progress)
            for one in databases:
                await _read_rows(one, one.after, facts)
            if mail is not None:
                await _read_mail(mail, now_ms, facts, report)
            rules = Rules(
                required=required,
                deadline=timedelta(seconds=settings.validation_deadline_s),
                grace=grace,
                exactly_once=guarantee is Guarantee.EXACTLY_ONCE,
                now_ms=now_ms,
                needs=needs,
                patience=timedelta(seconds=settings.checkin_patience_s),
                window=timedelta(seconds=settings.email_window_s),
                currency=settings.currency,
                unpaid=timedelta(days=settings.email_unpaid_days),
                price_drop=Decimal(str(settings.product_price_drop_limit)),
                changes=settings.product_changes_limit,
                changes_window=timedelta(seconds=settings.product_changes_window_s),
                notified=settings.product_notifications_to,
                partial=not topics.whole(Source.ORDERS),
                from_ms={source: topics.read_from_ms(source) for source in topics.sources},
                seen=frozenset(topics.sources)
                | frozenset(one.after for one in databases)
                | ({Source.MAIL, Source.NOTICES_MAIL} if mail else set()),
            )
        progress("reading dead letters", 0, 1)
        await lost.judge(settings, since, report)
        await judge(facts, rules, report, progress)
    report.counts["unreadable"] += topics.unreadable
    report.counts["misplaced"] += topics.misplaced
    report.misplaced = topics.misplaced_shown
    report.unreadable = topics.faults
    for place, cause in topics.lost_rows:
        report.add(Violation(Kind.UNREADABLE_RECORD, place, cause))
    report.missing = tuple(name for source, name in CORE.items() if source not in topics.sources)
    report.absent = tuple(name for source, name in SERVICES.items() if source not in topics.sources)
    named = {one.look for one in databases}
    report.unasked = (
        *(f"what the database of {look.service} has" for look in _LOOKS if look not in named),
        *(("letters, against those that were delivered",) if mail is None else ()),
    )
    return report


class _Reach(NamedTuple):
    """A database that can be read: from where, what, and as which sources, before and after the ends are found."""

    url: str
    look: database.TableQuery
    before: Source | None
    after: Source


_LOOKS = (database.CHECK_INS, database.PRODUCTS, database.PRODUCT_LOG)


def _databases(settings: Settings) -> list[_Reach]:
    def url(secret: SecretStr | None) -> str:
        return secret.get_secret_value() if secret else ""

    found = (
        _Reach(url(settings.checkin_database_url), database.CHECK_INS, Source.ROWS_BEFORE, Source.ROWS_AFTER),
        _Reach(url(settings.products_database_url), database.PRODUCTS, Source.PRODUCTS_BEFORE, Source.PRODUCTS_AFTER),
        _Reach(url(settings.product_log_database_url), database.PRODUCT_LOG, None, Source.PRODUCT_LOG),
    )
    return [reach for reach in found if reach.url]


async def _read_rows(reach: _Reach, source: Source | None, facts: Sorted) -> None:
    if source is not None:
        async for key, fact in database.rows(reach.url, reach.look, source):
            facts.add(key, fact)


async def _read_mail(folder: Path, began_ms: int, facts: Sorted, report: Report) -> None:
    for number, found in enumerate(maildir.letters(folder, began_ms)):
        if found is None:
            report.counts["letters of others"] += 1
        else:
            facts.add(*found)
        if number % _BREATH == 0:
            await asyncio.sleep(0)


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

    def changed(source: Source, product: str, fact: Fact, by: int) -> None:
        facts.add(product.encode(), fact._replace(source=source, value=b"%d" % by))

    for number, (order_id, of_order) in enumerate(facts.orders()):
        for violation in orders.judge(order_id, of_order, rules, report.counts, changed, facts.of_customer):
            report.add(violation)
        done += len(of_order)
        if number % _BREATH == 0:
            progress("judging orders", done, size)
            await asyncio.sleep(0)
    sums = Sums()

    def told(event_id: str, fact: Fact) -> None:
        facts.add(event_id.encode(), fact._replace(source=Source.TOLD_OF))

    for code, of_code in facts.codes():
        for violation in products.judge(code, of_code, rules, report.counts, sums, told):
            report.add(violation)
        await asyncio.sleep(0)
    for violation in sums.judge(facts.of_shop(), rules, report.counts):
        report.add(violation)
    for event_id, of_event in facts.events():
        for violation in notices.judge(event_id, of_event, rules, report.counts):
            report.add(violation)
        await asyncio.sleep(0)
    if not {Source.STOCK, Source.RESERVATIONS} <= rules.seen:
        return
    for product in facts.products():
        of: Callable[[Source], Iterator[Fact]] = partial(facts.of_product, product)
        streams = of(Source.WAREHOUSE), of(Source.STOCK), of(Source.HELD)
        for violation in stock.judge(product, *streams, rules, report.counts, of(Source.SENT_OFF)):
            report.add(violation)
        await asyncio.sleep(0)
    progress("judging orders", size, size)

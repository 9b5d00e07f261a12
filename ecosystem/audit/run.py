"""Runs an audit: looks up end offsets, reads, sorts and judges."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from checkin_service.settings import CheckinSettings
from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import lost, notices, orders, products, stock
from ecosystem.audit.judging.totals import ExpectedTotals
from ecosystem.audit.reading import check_sets, database, maildir
from ecosystem.audit.reading.fact_store import FactStore
from ecosystem.audit.reading.topics import TopicReader
from ecosystem.audit.report import AuditError, Report, Rules, Violation, ViolationKind
from ecosystem.audit.sources import CORE, SERVICES, TOPICS, Source
from ecosystem.settings import CommandSettings
from email_service.settings import EmailSettings
from fulfilment_service.settings import FulfilmentSettings
from orders_service.settings import OrdersSettings
from product_subscribers.notifications.settings import ProductNotificationsSettings
from product_subscribers.security.settings import ProductSecuritySettings
from product_subscribers.transaction_log.settings import ProductLogSettings
from products_service.settings import ProductsSettings
from runtime.common.settings import Guarantee, Settings
from schemas.messages import BuiltInCheck, Need

GRACE = timedelta(seconds=30)
"""Default grace: longer than a session timeout and a rebalance, by which a crash delays results."""

TRANSACTION_WAIT = timedelta(minutes=2)
"""Default wait for open transactions: the broker aborts abandoned ones after their timeout, by default 10 s."""

Progress = Callable[[str, int, int], None]
"""Called with the current step, and how much of the total is done."""

_YIELD_EVERY = 500
"""Orders, or e-mails, after which other tasks of the event loop get a turn."""


async def audit(
    settings: Settings,
    *,
    since: datetime | None = None,
    guarantee: Guarantee | None = None,
    grace: timedelta = GRACE,
    transaction_wait: timedelta = TRANSACTION_WAIT,
    max_kept: int = 100,
    folder: Path | None = None,
    mail: Path | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Verifies that every promise of the services was kept.

    Every acknowledged order reached one final state, its stock adds up, and its results (shipment, check-ins, e-mails)
    occurred once. Reads committed records up to the end offsets at the start; writes nothing and joins no group. Memory
    is bounded, as records are sorted on disk.

    Arguments:
        settings: of the workers: broker, prefix, required checks, and the databases to compare.
        since: audit only orders posted from then on.
        guarantee: guarantee to audit against; by default that of `settings`.
        grace: delay after which a missing result is a violation.
        transaction_wait: how long to wait for open transactions.
        max_kept: violations of a kind that are kept with their records; all are counted.
        folder: for temporary files; by default the system's.
        mail: a Maildir with all delivered e-mails.
        progress: called with the progress.

    Raises:
        AuditError: the audit could not be done.
        aiokafka.errors.KafkaError: the broker does not answer.
    """
    guarantee = guarantee or settings.processing_guarantee
    of_orders, of_fulfilment = settings.of(OrdersSettings), settings.of(FulfilmentSettings)
    of_emails, of_products = settings.of(EmailSettings), settings.of(ProductSecuritySettings)
    currency = settings.of(CommandSettings).currency
    try:
        required = frozenset(check for check in of_orders.required_checks)
        needs = tuple(Need(need) for need in of_fulfilment.fulfilment_needs)
    except ValueError as error:
        known = f"the checks are {', '.join(BuiltInCheck)}, the needs are {', '.join(Need)}"
        raise AuditError(f"REQUIRED_CHECKS or FULFILMENT_NEEDS: {error}; {known}") from error
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    report = Report(max_kept, currency)
    databases = _databases(settings)
    with FactStore(folder) as facts:
        progress("reading databases", 0, 1)
        for one in databases:
            await _read_rows(one, one.before, facts)
        progress("looking up end offsets", 0, 1)
        async with TopicReader(settings, guarantee, since, transaction_wait) as topics:
            await _read(topics, facts, progress)
            for one in databases:
                await _read_rows(one, one.after, facts)
            if mail is not None:
                await _read_mail(mail, now_ms, facts, report)
            rules = Rules(
                required=required,
                sets=await check_sets.read(settings),
                deadline=timedelta(seconds=of_orders.validation_deadline_s),
                grace=grace,
                exactly_once=guarantee is Guarantee.EXACTLY_ONCE,
                now_ms=now_ms,
                needs=needs,
                patience=timedelta(seconds=of_fulfilment.checkin_patience_s),
                window=timedelta(seconds=of_emails.email_window_s),
                currency=currency,
                unpaid=timedelta(days=of_emails.email_unpaid_days),
                price_drop=Decimal(str(of_products.product_price_drop_limit)),
                changes=of_products.product_changes_limit,
                changes_window=timedelta(seconds=of_products.product_changes_window_s),
                notified=settings.of(ProductNotificationsSettings).product_notifications_to,
                partial=not topics.is_complete(Source.ORDERS),
                from_ms={source: topics.read_from_ms(source) for source in topics.sources},
                seen=frozenset(topics.sources)
                | frozenset(one.after for one in databases)
                | ({Source.EMAILS_DELIVERED, Source.NOTICES_DELIVERED} if mail else set()),
            )
        progress("reading dead letters", 0, 1)
        await lost.judge(settings, since, report)
        await judge(facts, rules, report, progress)
    report.counts["unreadable"] += topics.unreadable
    report.counts["misplaced"] += topics.misplaced
    report.misplaced = topics.misplaced_shown
    report.unreadable = topics.decoding_errors
    for position, cause in topics.undecodable_rows:
        report.add(Violation(ViolationKind.UNREADABLE_RECORD, position, cause))
    report.missing_topics = tuple(name for source, name in CORE.items() if source not in topics.sources)
    report.absent_services = tuple(name for source, name in SERVICES.items() if source not in topics.sources)
    given = {one.query for one in databases}
    report.not_compared = (
        *(f"the database of {query.service}" for query in _QUERIES if query not in given),
        *(("delivered e-mails",) if mail is None else ()),
    )
    return report


class _DatabaseRead(NamedTuple):
    """A query, and the sources of its rows before and after the topics are read."""

    url: str
    query: database.TableQuery
    before: Source | None
    after: Source


_QUERIES = (database.CHECK_INS, database.PRODUCTS, database.PRODUCT_LOG)


def _databases(settings: Settings) -> list[_DatabaseRead]:
    def url(secret: SecretStr | None) -> str:
        return secret.get_secret_value() if secret else ""

    found = (
        _DatabaseRead(
            url(settings.of(CheckinSettings).checkin_database_url),
            database.CHECK_INS,
            Source.CHECK_IN_ROWS_BEFORE,
            Source.CHECK_IN_ROWS_AFTER,
        ),
        _DatabaseRead(
            url(settings.of(ProductsSettings).products_database_url),
            database.PRODUCTS,
            Source.PRODUCT_ROWS_BEFORE,
            Source.PRODUCT_ROWS_AFTER,
        ),
        _DatabaseRead(
            url(settings.of(ProductLogSettings).product_log_database_url),
            database.PRODUCT_LOG,
            None,
            Source.PRODUCT_LOG,
        ),
    )
    return [read for read in found if read.url]


async def _read_rows(read: _DatabaseRead, source: Source | None, facts: FactStore) -> None:
    if source is not None:
        async for key, fact in database.rows(read.url, read.query, source):
            facts.add(key, fact)


async def _read_mail(folder: Path, start_ms: int, facts: FactStore, report: Report) -> None:
    for number, found in enumerate(maildir.emails(folder, start_ms)):
        if found is None:
            report.counts["other emails"] += 1
        else:
            facts.add(*found)
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)


async def _read(topics: TopicReader, facts: FactStore, progress: Progress) -> None:
    size, done = topics.size, 0
    for source in topics.sources:

        def advanced(by: int, source: Source = source) -> None:
            nonlocal done
            done += by
            progress(f"reading {TOPICS[source]}", done, size)

        async for key, fact in topics.records(source, advanced):
            facts.add(key, fact)


async def judge(
    facts: FactStore, rules: Rules, report: Report, progress: Progress = lambda step, done, total: None
) -> None:
    """Judges every order, then every product, event and stock of which there are facts."""
    size, done = facts.count, 0

    def add_stock_change(source: Source, product: str, fact: Fact, pieces: int) -> None:
        facts.add(product.encode(), fact._replace(source=source, value=b"%d" % pieces))

    for number, (order_id, of_order) in enumerate(facts.orders()):
        for violation in orders.judge(order_id, of_order, rules, report.counts, add_stock_change, facts.of_customer):
            report.add(violation)
        done += len(of_order)
        if number % _YIELD_EVERY == 0:
            progress("judging orders", done, size)
            await asyncio.sleep(0)
    totals = ExpectedTotals()

    def add_event(event_id: str, fact: Fact) -> None:
        facts.add(event_id.encode(), fact._replace(source=Source.NOTIFIABLE_EVENTS))

    for code, of_code in facts.codes():
        for violation in products.judge(code, of_code, rules, report.counts, totals, add_event):
            report.add(violation)
        await asyncio.sleep(0)
    for violation in totals.judge(facts.of_shop(), rules, report.counts):
        report.add(violation)
    for event_id, of_event in facts.events():
        for violation in notices.judge(event_id, of_event, rules, report.counts):
            report.add(violation)
        await asyncio.sleep(0)
    if not {Source.STOCK, Source.RESERVATIONS} <= rules.seen:
        return
    for product in facts.products():
        facts_from: Callable[[Source], Iterator[Fact]] = partial(facts.of_product, product)
        streams = facts_from(Source.WAREHOUSE), facts_from(Source.STOCK), facts_from(Source.HOLDINGS)
        for violation in stock.judge(product, *streams, rules, report.counts, facts_from(Source.SHIPPED_PIECES)):
            report.add(violation)
        await asyncio.sleep(0)
    progress("judging orders", size, size)

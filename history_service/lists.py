"""Lists of orders: pages by keyset, from indexes only, so that each page takes the same time."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.filters import Filters, Position
from history_service.models import ORDER_WORDS, ORDERS
from history_service.projection import TIME_COLUMNS, search_text
from schemas.history import ListedOrder
from schemas.messages import OrderState

MOST_CANDIDATES = 20_000
"""Words with a part up to which their orders are sorted. If more have it, the next one is never far: the list is read
in its order until a page is full."""

PROBED = 20
"""Orders, per order of a page, among which a part is looked for first. A part that more than one in so many orders has
fills the page from them: the index would read all words that have the part."""

_ALL = select(
    *(ORDERS.c[name] for name in ("id", "state", "customer_id", "product", "quantity", "price", "value")),
    *(ORDERS.c[name] for name in ("created_at", "updated_at", "reasons", "failed_checks", *TIME_COLUMNS)),
)

INDEXES_ONLY = select(
    func.set_config("enable_seqscan", "off", True),
    func.set_config("plan_cache_mode", "force_custom_plan", True),
    func.set_config("jit", "off", True),
)
"""Settings of a transaction with lists. The planner weighs scans by statistics, which may be old, and by an average
over all filters; compiling a plan takes longer than a page."""


class Page(NamedTuple):
    """A page of orders. `last` is the order after which the next page begins; `None` if there is none."""

    orders: tuple[ListedOrder, ...]
    last: Position | None


async def read_page(connection: AsyncConnection, filters: Filters, after: Position | None, limit: int) -> Page:
    """Reads up to `limit` orders after a position, newest first."""
    await connection.execute(INDEXES_ONLY)
    if filters.part or filters.reason:
        rows = (await connection.execute(probe(filters, after, limit + 1))).all()
        if len(rows) > limit:
            return _page(rows, limit)
    ids: set[str] | None = None
    for part in filter(None, (filters.part, filters.reason)):
        found = (await connection.scalars(candidates(part))).all()
        if len(found) <= MOST_CANDIDATES:
            ids = set(found) if ids is None else ids & set(found)
    if ids is not None and not ids:
        return Page((), None)
    return _page((await connection.execute(page(filters, after, limit + 1, ids))).all(), limit)


def _page(rows: Sequence[Any], limit: int) -> Page:
    orders = tuple(_listed(row) for row in rows[:limit])
    return Page(orders, Position(orders[-1].created_at, orders[-1].id) if len(rows) > limit else None)


def probe(filters: Filters, after: Position | None, limit: int) -> Select[Any]:
    """The orders of a page, up to `limit`, that are among the next ones by the filters that are no texts."""
    plain = page(replace(filters, part=None, reason=None), after, PROBED * limit).subquery()
    return _ordered(select(plain).where(*_texts(filters, plain)), limit, plain)


def candidates(part: str) -> Select[Any]:
    """The orders of words with a part, one word more than `MOST_CANDIDATES` at most."""
    word, found = ORDER_WORDS.c.word, bindparam(None, search_text(part), Text)
    indexed = func.history_trigrams(word, type_=postgresql.ARRAY(Text)).contains(func.history_trigrams(found))
    query = select(ORDER_WORDS.c.order_id).where(indexed, func.strpos(word, found) > 0)
    return query.limit(literal_column(str(MOST_CANDIDATES + 1)))


def page(filters: Filters, after: Position | None, limit: int, ids: Collection[str] | None = None) -> Select[Any]:
    """The orders of a page.

    An index has the orders of a state in their order, and not those of several: they are merged.

    Arguments:
        filters: which orders.
        after: the last order of the page before.
        limit: orders at most.
        ids: the orders that have the texts of the filters, if they are known.
    """
    rows = [_ordered(_ALL.where(*_conditions(filters, after, ids), *of), limit) for of in _states(filters.states)]
    if len(rows) == 1:
        return rows[0]
    merged = union_all(*(select(one.subquery()) for one in rows)).subquery()
    return _ordered(select(merged), limit, merged)


def _states(states: tuple[OrderState, ...]) -> list[list[ColumnElement[bool]]]:
    return [[ORDERS.c.state == state.value] for state in states] or [[]]


def _ordered(query: Select[Any], limit: int, of: Any = ORDERS) -> Select[Any]:
    return query.order_by(of.c.created_at.desc(), of.c.id.desc()).limit(literal_column(str(limit)))


def _conditions(filters: Filters, after: Position | None, ids: Collection[str] | None) -> list[ColumnElement[bool]]:
    c = ORDERS.c
    # Said in words: it is the condition of the indexes.
    result: list[ColumnElement[bool]] = [c.created_at.is_not(None)]
    if after is not None:
        result.append(tuple_(c.created_at, c.id) < tuple_(literal(after.created_at), literal(after.id)))
    if filters.customer_id is not None:
        result.append(c.customer_id == filters.customer_id)
    if filters.product is not None:
        result.append(c.product == filters.product)
    if filters.since is not None:
        result.append(c.created_at >= filters.since)
    if filters.before is not None:
        result.append(c.created_at < filters.before)
    if ids is not None:
        result.append(c.id == func.any(bindparam(None, list(ids), ARRAY(Text))))
        filters = replace(filters, part=None)
    return [and_(*result, *_texts(filters, ORDERS))]


def _texts(filters: Filters, of: Any) -> Iterator[ColumnElement[bool]]:
    """Conditions on the words and reasons of each order."""
    if filters.reason is not None:
        one = func.unnest(of.c.reasons).column_valued("one")
        yield select(one).where(func.strpos(func.lower(one), filters.reason.lower()) > 0).exists()
    if filters.part is not None:
        # A value, not EXISTS, which the planner could turn into a join that reads all words.
        has = func.strpos(ORDER_WORDS.c.word, bindparam(None, search_text(filters.part), Text)) > 0
        yield select(func.bool_or(has)).where(ORDER_WORDS.c.order_id == of.c.id).scalar_subquery()


def _listed(row: Any) -> ListedOrder:
    fields = row._mapping  # noqa: SLF001 - SQLAlchemy's own
    stages = {stage: at.astimezone(UTC) for name, stage in TIME_COLUMNS.items() if (at := fields[name]) is not None}
    lists = {name: tuple(fields[name] or ()) for name in ("reasons", "failed_checks")}
    times = {name: _utc(fields[name]) for name in ("created_at", "updated_at")}
    return ListedOrder.model_validate({**fields, **lists, **times, "stages": stages})


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)

"""Reads what explanations need: other orders of a customer and a product, verdicts, stock, products, checks."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ARRAY, Select, Text, and_, bindparam, cast, func, not_, or_, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.explain import Counted, Held, Level, Moment
from history_service.models import LOGS, ORDERS, RECORDS
from history_service.stages import STATE_STAGES, Stage
from schemas.history import ProductFacts
from schemas.messages import (
    FIRST_ATTEMPT,
    BuiltInCheck,
    CheckType,
    Order,
    OrderState,
    OrderValidation,
    ProductEventKind,
    RequiredChecks,
    ValidationResult,
)
from schemas.sessions import session_value
from schemas.topics import ORDER_VALIDATIONS, PRODUCTS, REQUIRED_CHECKS, WAREHOUSE_INVENTORY, Topic
from schemas.topics import ORDERS as ORDERS_TOPIC
from schemas.wire import Message

M = TypeVar("M", bound=Message)

MOST_NEIGHBOURS = 500
"""Orders of a customer before and after an order in which its session is looked for."""
MOST_HOLDERS = 5000
"""Orders of a product that may hold pieces. More are counted by their columns alone."""
_SKEW = timedelta(minutes=5)
"""How far clocks of writers may differ."""


class GivenVerdict(NamedTuple):
    """A verdict, and when it was given."""

    verdict: OrderValidation
    at: Moment


async def read_order(connection: AsyncConnection, order_id: str) -> Any | None:
    """The row of an order; `None` unless a record in `orders` is stored."""
    listed = ORDERS.c.created_at.is_not(None)
    return (await connection.execute(select(ORDERS).where(ORDERS.c.id == order_id, listed))).one_or_none()


async def read_verdicts(
    connection: AsyncConnection, posted: Mapping[str, datetime]
) -> dict[str, dict[CheckType, GivenVerdict]]:
    """The first verdict of each check, by order and check. `posted`: when the orders were posted, by id."""
    c = RECORDS.c
    ids = bindparam(None, list(posted), ARRAY(Text))
    query = select(c.order_id, c.produced_at, c.log, c.partition, c.offset, c.value)
    query = query.where(c.order_id == func.any(ids), c.stage == Stage.VERDICT.value)
    found: dict[str, dict[CheckType, GivenVerdict]] = {}
    for row in await connection.execute(query.order_by(c.produced_at, c.log, c.partition, c.offset)):
        verdict = _message(ORDER_VALIDATIONS, row.value)
        if verdict is not None:
            at = Moment(row.produced_at, posted[row.order_id], row.log, row.partition, row.offset)
            found.setdefault(row.order_id, {}).setdefault(verdict.check_type, GivenVerdict(verdict, at))
    return found


class Attempt(NamedTuple):
    """An attempt to decide an order.

    Arguments:
        reached: when the order reached each state in this attempt.
        verdicts: the first verdict of each check.
    """

    reached: Mapping[OrderState, datetime]
    verdicts: Mapping[CheckType, GivenVerdict]

    def first(self, *states: OrderState) -> datetime | None:
        """When the order reached the first of these states; `None` if it has reached none."""
        return min((self.reached[state] for state in states if state in self.reached), default=None)


async def read_attempts(connection: AsyncConnection, ids: Collection[str]) -> dict[str, dict[int, Attempt]]:
    """The attempts to decide orders, by order and number."""
    c = RECORDS.c
    stages = [Stage.VERDICT.value, *(stage.value for stage in STATE_STAGES.values())]
    query = select(c.order_id, c.produced_at, c.log, c.partition, c.offset, c.value, c.stage).where(
        c.order_id == func.any(bindparam(None, list(ids), ARRAY(Text))), c.stage.in_(stages)
    )
    reached: dict[tuple[str, int], dict[OrderState, datetime]] = {}
    given: dict[tuple[str, int], dict[CheckType, tuple[OrderValidation, Any]]] = {}
    for row in await connection.execute(query.order_by(c.produced_at, c.log, c.partition, c.offset)):
        if row.stage != Stage.VERDICT.value:
            if (order := _message(ORDERS_TOPIC, row.value)) is not None:
                place = (row.order_id, order.attempt_number)
                reached.setdefault(place, {}).setdefault(order.state, row.produced_at)
        elif (verdict := _message(ORDER_VALIDATIONS, row.value)) is not None:
            place = (row.order_id, verdict.attempt_number)
            given.setdefault(place, {}).setdefault(verdict.check_type, (verdict, row))
    found: dict[str, dict[int, Attempt]] = {}
    for place in sorted(reached.keys() | given.keys()):
        order_id, number = place
        states = reached.get(place, {})
        verdicts = {
            check: GivenVerdict(verdict, Moment(r.produced_at, states.get(OrderState.CREATED, r.produced_at), *r[2:5]))
            for check, (verdict, r) in given.get(place, {}).items()
        }
        found.setdefault(order_id, {})[number] = Attempt(states, verdicts)
    return found


async def read_counted(connection: AsyncConnection, order: Any, gap: timedelta) -> list[Counted]:
    """The orders of a customer that can be in one session with an order, as far as the fraud check has judged them."""
    c = ORDERS.c
    query = select(c.id, c.created_at, c.customer_id, c.product, c.quantity, c.price, c.posted_at, c.updated_at)
    query = query.where(c.customer_id == order.customer_id, c.created_at.is_not(None))
    earlier = query.where(c.created_at <= order.created_at).order_by(c.created_at.desc(), c.id.desc())
    later = query.where(c.created_at > order.created_at).order_by(c.created_at, c.id)
    rows = []
    for side in (earlier, later):
        last = order.created_at
        for row in await connection.execute(side.limit(MOST_NEIGHBOURS)):
            if abs(row.created_at - last) > gap:
                break
            rows.append(row)
            last = row.created_at
    verdicts = await read_verdicts(connection, {row.id: row.posted_at or row.updated_at for row in rows})
    return [
        Counted(row.id, row.created_at, _value(row), given.at)
        for row in rows
        if (given := verdicts.get(row.id, {}).get(BuiltInCheck.FRAUD_CHECK)) is not None
    ]


def _value(row: Any) -> Decimal:
    fields = {name: getattr(row, name) for name in ("id", "customer_id", "product", "quantity", "price", "created_at")}
    return session_value(Order.model_construct(**fields))


async def read_held(connection: AsyncConnection, order: Any, at: Moment, since: datetime | None) -> list[Held]:
    """The other orders that had reserved pieces of the product, and held them at a moment or were shipped `since`."""
    c = ORDERS.c
    gone = func.least(c.failed_at, c.cancelled_at, c.shipped_at)
    failed_checks = cast(c.failed_checks, postgresql.ARRAY(Text))
    query = select(c.id, c.quantity, c.posted_at, c.updated_at, c.failed_at, c.cancelled_at, c.shipped_at, c.attempt)
    held_then = or_(gone.is_(None), gone >= at.produced_at, *([] if since is None else [c.shipped_at >= since]))
    passed = or_(failed_checks.is_(None), not_(failed_checks.contains([BuiltInCheck.INVENTORY_CHECK.value])))
    query = query.where(
        c.product == order.product,
        c.created_at.is_not(None),
        c.id != order.id,
        c.judged_at <= at.produced_at + _SKEW,
        # An order that was decided anew has failed before, and may hold pieces again.
        or_(c.attempt > FIRST_ATTEMPT, and_(held_then, passed)),
    )
    found = (await connection.execute(query.order_by(c.created_at.desc()).limit(MOST_HOLDERS))).all()
    held = await _read_held_by_attempts(connection, {r.id: r.quantity for r in found if r.attempt > FIRST_ATTEMPT})
    rows = [row for row in found if row.attempt == FIRST_ATTEMPT]
    verdicts = await read_verdicts(connection, {row.id: row.posted_at or row.updated_at for row in rows})
    for row in rows:
        given = verdicts.get(row.id, {}).get(BuiltInCheck.INVENTORY_CHECK)
        if given is not None and given.verdict.validation_result is ValidationResult.PASS:
            freed = min((t for t in (row.failed_at, row.cancelled_at) if t is not None), default=None)
            held.append(Held(row.quantity, given.at, freed, row.shipped_at))
    return held


async def _read_held_by_attempts(connection: AsyncConnection, quantities: Mapping[str, int]) -> list[Held]:
    """What each attempt to decide orders has reserved. `quantities`: pieces of the orders, by id."""
    held = []
    for order_id, attempts in (await read_attempts(connection, quantities) if quantities else {}).items():
        for attempt in attempts.values():
            given = attempt.verdicts.get(BuiltInCheck.INVENTORY_CHECK)
            if given is not None and given.verdict.validation_result is ValidationResult.PASS:
                freed = attempt.first(OrderState.FAILED, OrderState.CANCELLED)
                held.append(Held(quantities[order_id], given.at, freed, attempt.first(OrderState.SHIPPED)))
    return held


async def read_level(connection: AsyncConnection, product: str, until: datetime) -> Level | None:
    """The last count of a product until a time; `None` without one."""
    row = await _last(connection, WAREHOUSE_INVENTORY, product, until)
    if row is None:
        return None
    level = _message(WAREHOUSE_INVENTORY, row.value) if row.value is not None else None
    return Level(None if level is None else level.count, row.produced_at)


async def read_product(connection: AsyncConnection, product: str, until: datetime) -> ProductFacts | None:
    """What the product service had published of a product until a time."""
    row = await _last(connection, PRODUCTS, product, until)
    event = _message(PRODUCTS, row.value) if row is not None else None
    if event is None:
        return None
    withdrawn = event.kind is ProductEventKind.WITHDRAWN
    return ProductFacts(version=event.version, price=event.price, withdrawn=withdrawn, changed_at=event.at)


async def read_required(connection: AsyncConnection, until: datetime) -> list[tuple[datetime, RequiredChecks]]:
    """The records of `required-checks` until a time."""
    query = _of_logs(await _logs(connection, REQUIRED_CHECKS), until)
    rows = await connection.execute(query)
    return [(row.produced_at, m) for row in rows if (m := _message(REQUIRED_CHECKS, row.value)) is not None]


async def _last(connection: AsyncConnection, topic: Topic[Any], key: str, until: datetime) -> Any | None:
    query = last_of_key(await _logs(connection, topic), key, until)
    return (await connection.execute(query)).one_or_none()


def last_of_key(logs: Collection[int], key: str, until: datetime) -> Select[Any]:
    """The last record of a key in logs, until a time. Of a topic that is about no order: the index has no others."""
    query = _of_logs(logs, until).where(RECORDS.c.key == key.encode(), RECORDS.c.order_id.is_(None))
    return query.order_by(RECORDS.c.produced_at.desc()).limit(1)


async def _logs(connection: AsyncConnection, topic: Topic[Any]) -> Sequence[int]:
    """The numbers of a topic's logs."""
    return (await connection.scalars(select(LOGS.c.id).where(LOGS.c.topic == topic.name))).all()


def _of_logs(logs: Collection[int], until: datetime) -> Select[Any]:
    """The records of logs until a time. Those of one log lie together in the primary key."""
    return select(RECORDS.c.produced_at, RECORDS.c.value).where(
        and_(RECORDS.c.log.in_(logs), RECORDS.c.produced_at <= until)
    )


def _message(topic: Topic[M], value: bytes | None) -> M | None:
    try:
        return None if value is None else topic.model.from_json(value)
    except ValueError:
        return None

import asyncio
from datetime import UTC, datetime

import pytest

from orders_service.in_flight import InFlight
from runtime.hosting import Unavailable
from schemas.messages import Order


def _order(n: int) -> Order:
    return Order(id=f"o-{n}", customer_id=1, product="x", quantity=1, price=1, created_at=datetime.now(UTC))


async def _ack() -> None:
    pass


async def _fail() -> None:
    raise Unavailable


async def test_an_order_is_remembered_until_the_view_shows_it():
    shown: set[str] = set()
    in_flight = InFlight(shown.__contains__)
    for n in range(100):
        await in_flight.send(_order(n), _ack()).acked
    assert len(in_flight) == 100
    shown |= {f"o-{n}" for n in range(1000)}
    for n in range(100, 200):
        await in_flight.send(_order(n), _ack()).acked
    assert len(in_flight) <= 2


async def test_an_order_that_kafka_has_not_acknowledged_is_remembered_though_the_view_shows_it():
    in_flight = InFlight(lambda _: True)
    gate = asyncio.Event()
    first = in_flight.send(_order(0), gate.wait())  # type: ignore[arg-type]
    await in_flight.send(_order(1), _ack()).acked
    assert in_flight.get("o-0") is first
    gate.set()
    await first.acked


async def test_never_more_than_the_limit_are_remembered_the_oldest_go_first():
    in_flight = InFlight(lambda _: False, limit=10)
    for n in range(25):
        await in_flight.send(_order(n), _ack()).acked
        assert len(in_flight) <= 10
    assert in_flight.get("o-24") is not None
    assert in_flight.get("o-0") is None


async def test_a_write_that_failed_is_forgotten_and_not_one_that_came_after_it():
    in_flight = InFlight(lambda _: False, limit=1)
    failing = in_flight.send(_order(0), _fail())
    with pytest.raises(Unavailable):
        await failing.acked
    assert in_flight.get("o-0") is None
    # The limit pushed out the first while it was under way: that it fails then must not take the second along.
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await gate

    first = in_flight.send(_order(0), wait())
    in_flight.send(_order(1), _ack())
    second = in_flight.send(_order(0), _ack())
    gate.set_exception(Unavailable())
    await asyncio.wait({first.acked, second.acked})
    assert in_flight.get("o-0") is second

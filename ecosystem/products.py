"""Products from a file or a list, offered through the product service. Doing it again changes nothing."""

import asyncio
import csv
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from enum import StrEnum

from pydantic import ValidationError

from ecosystem.api import ProductsApi, Refusal, Unreachable
from runtime.backoff import Backoff
from runtime.dead_letters import describe
from schemas.api import NewProduct, ProductState

_FIELDS = ("code", "name", "price")
_AT_ONCE = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


class BadFile(Exception):
    """A file that is no list of products. The text says where and why."""


class Outcome(StrEnum):
    """What became of a product that was to be offered."""

    OFFERED = "offered"
    CHANGED = "changed"
    LEFT = "left as they are"
    WITHDRAWN = "left withdrawn"


def read(lines: Iterable[str]) -> list[NewProduct]:
    """The products of a CSV file whose first line names the columns code, name and price. Raises `BadFile`."""
    reader = csv.DictReader(lines, skipinitialspace=True)
    try:
        if missing := [name for name in _FIELDS if name not in (reader.fieldnames or ())]:
            raise BadFile(f"line 1 must name the columns {', '.join(_FIELDS)}; missing: {', '.join(missing)}")
        products = [_product(row, reader.line_num) for row in reader]
    except csv.Error as error:
        raise BadFile(f"line {reader.line_num}: {error}") from None
    twice = [code for code, count in Counter(p.code for p in products).items() if count > 1]
    if twice:
        raise BadFile(f"these codes are there more than once: {', '.join(twice)}")
    return products


async def offer(
    api: ProductsApi, products: Sequence[NewProduct], *, change: bool = False, patience_s: float = 0
) -> Counter[Outcome]:
    """Offers each product, and returns what became of them.

    Arguments:
        api: the product service.
        products: each code once.
        change: whether a product that is there already with another name or price is changed. One that was withdrawn
            never is.
        patience_s: how long a service that is not there, or not ready, is waited for. Then raises what `api` raises.
    """
    deadline, room = time.monotonic() + patience_s, asyncio.Semaphore(_AT_ONCE)

    async def patiently(new: NewProduct) -> Outcome:
        backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        async with room:
            while True:
                try:
                    return await _offer(api, new, change=change)
                except (Unreachable, Refusal) as error:
                    if (isinstance(error, Refusal) and error.status != 503) or time.monotonic() > deadline:
                        raise
                await backoff.pause()

    first = [await patiently(new) for new in products[:1]]  # alone: the others need not all wait for the service
    return Counter([*first, *await asyncio.gather(*map(patiently, products[1:]))])


async def _offer(api: ProductsApi, new: NewProduct, *, change: bool) -> Outcome:
    try:
        await api.create(new)
    except Refusal as refusal:
        if refusal.status != 409:
            raise
    else:
        return Outcome.OFFERED
    there = await api.get(new.code)
    if there.state is ProductState.WITHDRAWN:
        return Outcome.WITHDRAWN
    if not change:
        return Outcome.LEFT
    await api.change(new.code, new, there.version)
    return Outcome.CHANGED


def _product(row: dict[str, str], line: int) -> NewProduct:
    if any(row[name] is None for name in _FIELDS):
        raise BadFile(f"line {line} has less columns than line 1")
    try:
        return NewProduct(code=row["code"], name=row["name"], price=Decimal(row["price"]))
    except InvalidOperation:
        raise BadFile(f"line {line}: price: {row['price']!r} is not an amount such as 9.90") from None
    except ValidationError as error:
        raise BadFile(f"line {line}: {describe(error)}") from None

"""Products from a file or a list, offered through the product service. Doing it again changes nothing."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from ecosystem.cli.rows import Form
from ecosystem.clients.api import ProductsApi, RequestRejected, Unreachable
from runtime.common.backoff import Backoff
from schemas.api import NewProduct, ProductState
from schemas.identifiers import Code, Composed, Name
from schemas.wire import Message, Money

_AT_ONCE = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


class ProductRow(Message):
    """A product in a file, where all is text."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    code: Annotated[Code, Composed]
    name: Name
    price: Annotated[Money, Field(ge=0)]


FORM = Form(ProductRow, "code", "product")


class Outcome(StrEnum):
    """What became of a product that was to be offered."""

    OFFERED = "offered"
    CHANGED = "changed"
    LEFT = "left as they are"
    WITHDRAWN = "left withdrawn"


def read(name: str, lines: Iterable[str]) -> list[NewProduct]:
    """The products of a CSV file called `name`. Raises `BadFile`."""
    return [NewProduct(code=row.code, name=row.name, price=row.price) for row in FORM.all(name, lines)]


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
                except (Unreachable, RequestRejected) as error:
                    if (isinstance(error, RequestRejected) and error.status != 503) or time.monotonic() > deadline:
                        raise
                await backoff.pause()

    first = [await patiently(new) for new in products[:1]]  # alone: the others need not all wait for the service
    return Counter([*first, *await asyncio.gather(*map(patiently, products[1:]))])


async def _offer(api: ProductsApi, new: NewProduct, *, change: bool) -> Outcome:
    try:
        await api.create(new)
    except RequestRejected as refusal:
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

"""Offers a list of products through the product service. Repeating it changes nothing."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import Annotated

from pydantic import ConfigDict, Field

from ecosystem.cli.csv_files import CsvSchema
from ecosystem.clients.api import ProductsApi, RequestRejected, Unreachable
from runtime.common.backoff import Backoff, retry
from schemas.api import NewProduct, ProductState
from schemas.identifiers import Code, Composed, Name
from schemas.wire import Message, Money

_MAX_CONCURRENT = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0


class ProductRow(Message):
    """A row of a CSV file with products."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    code: Annotated[Code, Composed]
    name: Name
    price: Annotated[Money, Field(ge=0)]


SCHEMA = CsvSchema(ProductRow, "code", "product")


class OfferOutcome(StrEnum):
    """What happened to a product that was to be offered. The values are printed."""

    OFFERED = "offered"
    CHANGED = "changed"
    LEFT = "left as they are"
    WITHDRAWN = "left withdrawn"


def read_products(name: str, lines: Iterable[str]) -> list[NewProduct]:
    """Returns the products of a CSV file called `name`. Raises `InvalidFile`."""
    return [NewProduct(code=row.code, name=row.name, price=row.price) for row in SCHEMA.read_all(name, lines)]


async def offer(
    api: ProductsApi, products: Sequence[NewProduct], *, change: bool = False, timeout_s: float = 0
) -> Counter[OfferOutcome]:
    """Offers each product. Returns how often each outcome occurred.

    Arguments:
        api: the product service.
        products: each code once.
        change: whether to change an existing product that has another name or price. Withdrawn products are left as
            they are.
        timeout_s: how long to retry while the service is unavailable, in seconds. Then raises what `api` raises.
    """
    deadline, slots = time.monotonic() + timeout_s, asyncio.Semaphore(_MAX_CONCURRENT)

    def passes(error: Exception) -> bool:
        unavailable = isinstance(error, Unreachable) or (isinstance(error, RequestRejected) and error.status == 503)
        return unavailable and time.monotonic() <= deadline

    async def offer_with_retries(new: NewProduct) -> OfferOutcome:
        async with slots:
            return await retry(
                partial(_offer, api, new, change=change), Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S), passes=passes
            )

    first = [await offer_with_retries(new) for new in products[:1]]  # alone, until the service is available
    return Counter([*first, *await asyncio.gather(*map(offer_with_retries, products[1:]))])


async def _offer(api: ProductsApi, new: NewProduct, *, change: bool) -> OfferOutcome:
    try:
        await api.create(new)
    except RequestRejected as error:
        if error.status != 409:
            raise
    else:
        return OfferOutcome.OFFERED
    existing = await api.get(new.code)
    if existing.state is ProductState.WITHDRAWN:
        return OfferOutcome.WITHDRAWN
    if not change:
        return OfferOutcome.LEFT
    await api.change(new.code, new, existing.version)
    return OfferOutcome.CHANGED

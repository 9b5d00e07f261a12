"""Asks the orders service of the target what it knows of orders."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus

from ecosystem.clients.api import OrdersApi, RequestRejected, Unreachable

MOST_ASKED = 1000
"""Orders that are asked for: a plan may have millions."""
_AT_ONCE = 16


async def states(url: str, order_ids: Sequence[str]) -> Counter[str | None] | None:
    """Counts the states of the first `MOST_ASKED` orders, those unknown there under `None`.

    Returns `None` if nobody answers.
    """
    limit = asyncio.Semaphore(_AT_ONCE)
    async with OrdersApi(url) as api:

        async def state(order_id: str) -> str | None:
            async with limit:
                try:
                    return (await api.get(order_id, 0)).state.value
                except RequestRejected as error:
                    if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GATEWAY_TIMEOUT}:
                        return None
                    raise Unreachable(str(error)) from error

        asked = [asyncio.create_task(state(order_id)) for order_id in order_ids[:MOST_ASKED]]
        try:
            return Counter(await asyncio.gather(*asked))
        except Unreachable:
            return None
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

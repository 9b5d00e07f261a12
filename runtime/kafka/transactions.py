"""Finds out whether the brokers have transactions for us. Azure Event Hubs' Standard tier has none.

Asks only: which requests the broker knows, and who coordinates transactions of an id. No transaction is begun.
"""

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import ApiVersionRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest

from runtime.common.backoff import Backoff, retry
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.commit_requests import REQUESTS, AddOffsetsToTxn, EndTxn

_TRANSACTION = 1
"""Type of coordinator, in FindCoordinator."""
_TIMEOUT_S = 30.0
"""Seconds until a coordinator must be found: a new cluster creates its topic of transactions at the first question."""

_PROBE = "transactions-probe"


async def why_no_transactions(settings: Settings) -> str | None:
    """Returns why the brokers refuse transactions; `None` if they have them. Raises `KafkaError` if none answers."""
    client = clients.bare_client(settings)
    try:
        await client.bootstrap()
        answer = await client.send(client.get_random_node(), ApiVersionRequest())
        versions = {key: (lowest, highest) for key, lowest, highest in answer.api_versions}
        unknown = [request.__name__ for request in REQUESTS if request.newest(versions) is None]
        if {AddOffsetsToTxn.__name__, EndTxn.__name__} & {*unknown}:
            return _unknown(unknown)
        async with asyncio.timeout(_TIMEOUT_S):
            refusal = await retry(
                lambda: _coordinator(client, settings.topic_prefix + _PROBE),
                Backoff(0.1, 1.0),
                passes=lambda error: isinstance(error, KafkaError) and error.retriable,
            )
        # The broker's own words, if it has some, say more than its versions.
        return refusal or (_unknown(unknown) if unknown else None)
    finally:
        await client.close()


def _unknown(requests: list[str]) -> str:
    return f"the broker does not know {', '.join(requests)}"


async def _coordinator(client: AIOKafkaClient, transactional_id: str) -> str | None:
    response = await client.send(client.get_random_node(), FindCoordinatorRequest(transactional_id, _TRANSACTION))
    if not response.error_code:
        return None
    error = for_code(response.error_code)
    text = f"{error.message} {response.error_message or ''}".strip()
    if error.retriable:
        raise error(text)
    return text

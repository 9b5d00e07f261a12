"""A worker's first contact with the brokers: waits for them, and finds out what they can and cannot do."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from runtime.common.backoff import Backoff, retry
from runtime.common.settings import Guarantee, Settings
from runtime.errors import KafkaRejected
from runtime.kafka.rejections import find_rejection
from runtime.kafka.topic_configs import unkept_settings
from runtime.kafka.topics import TopicConfigs
from runtime.kafka.transactions import why_no_transactions

log = logging.getLogger(__name__)

_NAMESPACE = "use a connection string of the namespace, without EntityPath"

_PAUSE_S = 1.0
"""Seconds between two attempts to reach the brokers."""


async def until_reached(settings: Settings, action: Callable[[], Awaitable[None]]) -> None:
    """Repeats `action` until the brokers are reached. Raises `KafkaRejected` if they reject us for good."""

    async def attempt() -> None:
        try:
            await action()
        except (KafkaError, OSError, TimeoutError) as error:
            rejection = await find_rejection(settings)
            if rejection is None:
                raise
            if rejection.final:
                raise KafkaRejected(rejection.reason) from error
            raise KafkaError(rejection.reason) from error

    servers = settings.kafka_bootstrap_servers
    await retry(
        attempt,
        Backoff(_PAUSE_S),
        passes=lambda error: isinstance(error, (KafkaError, OSError, asyncio.TimeoutError)),
        report=lambda error: log.warning("broker not reached, retrying servers=%s error=%r", servers, error),
    )


async def with_guarantee(settings: Settings) -> Settings:
    """Settings with the processing guarantee that the brokers can keep.

    Azure Event Hubs has transactions in some of its tiers only. Without them, a worker that nobody has told a guarantee
    processes at least once. Raises `KafkaRejected` if it was told to process exactly once, or if other brokers refuse
    transactions, which is a missing permission.
    """
    if (entity := settings.event_hub_entity) is not None:
        log.warning("EVENTHUB_CONNECTIONSTRING is good for one topic only topic=%s remedy=%s", entity, _NAMESPACE)
    if settings.at_least_once or (why := await why_no_transactions(settings)) is None:
        return settings
    if not settings.event_hubs:
        raise KafkaRejected(
            f"the brokers refuse transactions ({why}): allow DESCRIBE and WRITE on transactional ids that begin with "
            f"{settings.topic_prefix!r}, or set PROCESSING_GUARANTEE=at_least_once"
        )
    if "processing_guarantee" in settings.model_fields_set:
        raise KafkaRejected(
            f"this tier of Event Hubs has no transactions ({why}): set PROCESSING_GUARANTEE=at_least_once, or use the "
            "Premium or Dedicated tier"
        )
    log.warning(
        "Event Hubs has no transactions here, processing at least once reason=%s remedy=%s",
        why,
        "set PROCESSING_GUARANTEE=at_least_once to acknowledge, or use the Premium or Dedicated tier",
    )
    return settings.model_copy(update={"processing_guarantee": Guarantee.AT_LEAST_ONCE})


async def report_unkept_settings(settings: Settings, wanted: TopicConfigs) -> None:
    """Logs settings of topics that Event Hubs did not take over: its tiers limit retention and compaction."""
    if not settings.event_hubs:
        return
    for found in await unkept_settings(settings, wanted):
        log.warning(
            "topic setting not kept by Event Hubs topic=%s setting=%s wanted=%s found=%s",
            found.topic,
            found.setting,
            found.wanted,
            found.found,
        )

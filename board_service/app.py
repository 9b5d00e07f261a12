"""Board service: a page that shows orders, stock, workers, backlog and dead letters live; it consumes nothing."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from board_service.deployment import Deployment
from board_service.http import BoardApi, endpoints
from board_service.observer import STREAMS, BoardObserver
from board_service.relay import HISTORY, ORDERS, Relay
from board_service.settings import BoardSettings
from board_service.streams import BoardStreams
from board_service.timeline import Timelines
from runtime.common.settings import Settings
from runtime.hosting import Host, Job, ServiceDefinition
from runtime.model.service import Service
from runtime.observation.feed import Feed


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(BoardSettings)
    observer = BoardObserver(own.fraud_limit, own.fraud_session_gap_s, _now_ms)
    feed = Feed(settings, STREAMS, observer)
    deployment = Deployment(settings, {ORDERS: own.board_orders_url, HISTORY: own.board_history_url})
    relay = Relay(deployment)
    about = {"currency": own.currency, "fraudLimit": own.fraud_limit}
    streams = BoardStreams(feed, observer, deployment, Timelines(relay), about, _now_ms)

    @asynccontextmanager
    async def lifespan(host: Host) -> AsyncIterator[None]:
        async with deployment.open(host), feed.open():
            yield

    async def refresh() -> None:
        if feed.watched:
            await deployment.refresh()
        else:
            await deployment.rest()

    return ServiceDefinition(
        Service(name="board", inputs=(), outputs=()),
        endpoints(BoardApi(streams, relay)),
        lifespan=lifespan,
        jobs=(Job("board refresh", Deployment.EVERY_S, refresh),),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

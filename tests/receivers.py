"""A receiver of webhooks that records deliveries, and answers as a test says."""

import asyncio
import json
from typing import Any, NamedTuple

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class Received(NamedTuple):
    """A delivery as it arrived."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    @property
    def what(self) -> tuple[str, str]:
        """Order, or product, and type."""
        return self.event["data"].get("id", self.event["data"].get("code", "")), self.event["type"]

    def verifies(self, secret: str) -> bool:
        """Whether the reference implementation of Standard Webhooks accepts its signature by this secret."""
        try:
            Webhook(secret).verify(self.body, self.headers)
        except WebhookVerificationError:
            return False
        return True


class Receiver:
    """A server that records what arrives.

    `status` is its answer, or a function of a delivery that returns it. `pause_s`: seconds before it answers.
    """

    def __init__(self, status=204, *, pause_s=0.0):
        self.status = status
        self.pause_s = pause_s
        self.attempts: list[Received] = []
        self.accepted: list[Received] = []
        self.open = self.most_open = 0
        self.paths: set[str] = set()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/{path:.*}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        return self

    async def __aexit__(self, *error):
        await self._runner.cleanup()

    async def _receive(self, request):
        received = Received({name.lower(): value for name, value in request.headers.items()}, await request.read())
        self.attempts.append(received)
        self.paths.add(request.path)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(self.pause_s)
        finally:
            self.open -= 1
        status = self.status(received) if callable(self.status) else self.status
        if status < 300:
            self.accepted.append(received)
        headers = {"Location": self.url.replace("hooks", "elsewhere")} if status in {301, 302, 307, 308} else {}
        return web.Response(status=status, headers=headers)

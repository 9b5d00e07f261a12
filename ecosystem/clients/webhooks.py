"""HTTP client of the webhook service."""

from urllib.parse import quote

from ecosystem.clients.api import Api
from schemas.webhooks import Deliveries, NewWebhook, TestDelivery, Webhooks, WebhookWithSecret

_PATH = "/v1/webhooks"
_TIMEOUT_MS = 10_000


class WebhooksApi(Api):
    """Client of the webhook service. With an unknown id, methods raise `RequestRejected` with 404."""

    async def add(self, new: NewWebhook) -> WebhookWithSecret:
        """Subscribes a URL. Returns the subscription with its secret. Repeated, it makes another subscription."""
        return WebhookWithSecret.from_json(await self._call("POST", _PATH, _TIMEOUT_MS, new.to_json()))

    async def list(self) -> Webhooks:
        """Returns all subscriptions."""
        return Webhooks.from_json(await self._call("GET", _PATH, _TIMEOUT_MS))

    async def remove(self, id_: str) -> None:
        """Removes a subscription."""
        await self._call("DELETE", _one(id_), _TIMEOUT_MS)

    async def rotate(self, id_: str) -> WebhookWithSecret:
        """Replaces the secret of a subscription, and returns the new one."""
        return WebhookWithSecret.from_json(await self._call("POST", f"{_one(id_)}/rotate", _TIMEOUT_MS))

    async def test(self, id_: str) -> TestDelivery:
        """Sends a test event to a subscription."""
        return TestDelivery.from_json(await self._call("POST", f"{_one(id_)}/test", _TIMEOUT_MS))

    async def deliveries(self, id_: str) -> Deliveries:
        """Returns the latest attempts to deliver to a subscription, newest first."""
        return Deliveries.from_json(await self._wait("GET", f"{_one(id_)}/deliveries", _TIMEOUT_MS))


def _one(id_: str) -> str:
    return f"{_PATH}/{quote(id_, safe='')}"

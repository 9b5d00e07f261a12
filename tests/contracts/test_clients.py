"""What our HTTP clients ask is in the OpenAPI document: the path, and each parameter of the query."""

import inspect
import re
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ecosystem.clients import api, webhooks
from ecosystem.services import NAMES, build
from runtime.common.settings import Settings
from runtime.http.openapi import document
from schemas.api import NewCheckin, NewOrder, NewProduct, ProductContent
from schemas.webhooks import NewWebhook

PATHS = document(build(NAMES, Settings()))["paths"]
NOW = datetime(2026, 1, 31, tzinfo=UTC)
PRODUCT = {"name": "Mug", "price": 5}
ORDER = NewOrder(customer_id=1, product="mug", quantity=1, price=5)
CHECKIN = NewCheckin.model_validate(NewCheckin.model_json_schema()["examples"][0])
HOOK = NewWebhook.model_validate({"url": "https://example.com/hook", "events": ["order.failed"]})

CALLS = [
    (api.OrdersApi, "post", (ORDER,)),
    (api.OrdersApi, "post_and_wait", (ORDER, 1000)),
    (api.OrdersApi, "events", ("o-1", 1000)),
    (api.OrdersApi, "get", ("o-1", 1000)),
    (api.OrdersApi, "cancel", ("o-1", 1000)),
    (api.OrdersApi, "validated", ("o-1", 1000)),
    (api.CheckinApi, "post", (CHECKIN,)),
    (api.CheckinApi, "get", ("e-1",)),
    (api.FulfilmentApi, "status", ("o-1", 1000)),
    (api.HistoryApi, "orders", ([("state", "FAILED"), ("limit", "3")],)),
    (api.HistoryApi, "history", ("o-1",)),
    (api.HistoryApi, "explain", ("o-1",)),
    (api.HistoryApi, "timings", (NOW, NOW)),
    (api.PortalApi, "check_ins", ("o-1", 1000)),
    (api.ProductsApi, "create", (NewProduct(code="mug", **PRODUCT),)),
    (api.ProductsApi, "get", ("mug",)),
    (api.ProductsApi, "change", ("mug", ProductContent(**PRODUCT))),
    (api.ProductsApi, "withdraw", ("mug",)),
    (webhooks.WebhooksApi, "add", (HOOK,)),
    (webhooks.WebhooksApi, "list", ()),
    (webhooks.WebhooksApi, "remove", ("w-1",)),
    (webhooks.WebhooksApi, "rotate", ("w-1",)),
    (webhooks.WebhooksApi, "test", ("w-1",)),
    (webhooks.WebhooksApi, "deliveries", ("w-1",)),
]


def test_every_method_of_a_client_is_tried():
    found = [one for module in (api, webhooks) for _, one in inspect.getmembers(module, inspect.isclass)]
    clients = {one for one in found if issubclass(one, api.Api) and one is not api.Api}
    methods = {(client, name) for client in clients for name in vars(client) if not name.startswith("_")}
    assert methods == {(client, name) for client, name, _ in CALLS}


@pytest.mark.parametrize(("client", "name", "arguments"), CALLS, ids=lambda value: getattr(value, "__name__", None))
async def test_a_request_is_documented(client, name, arguments):
    asked = []

    async def refuse(request):
        asked.append((request.method.lower(), request.path, set(request.query)))
        return web.json_response({"title": "No", "status": 400}, status=400)

    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", refuse)
    async with TestServer(application) as server, client(str(server.make_url("/"))) as one:
        with pytest.raises(api.RequestRejected):  # noqa: PT012 - a generator is called before it is iterated
            called = getattr(one, name)(*arguments)
            if inspect.isasyncgen(called):
                await anext(called)
            else:
                await called
    [(method, path, query)] = asked
    [template] = [t for t in PATHS if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", t), path) and method in PATHS[t]]
    known = {parameter["name"] for parameter in PATHS[template][method].get("parameters", ())}
    assert query <= known

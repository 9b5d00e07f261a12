"""`GET /v1/monitoring/products`: totals over all products."""

from aiohttp import web

from product_subscribers.monitoring.processors import ALL
from product_subscribers.monitoring.state import TOTALS
from runtime.hosting import Answer, Endpoint
from runtime.http.answers import answer
from runtime.http.routing import row_query
from schemas.api import ProductTotals


def _totals(_: str, found: ProductTotals | None) -> web.Response:
    return answer(ProductTotals() if found is None else found)


ENDPOINTS = (
    Endpoint(
        "GET",
        "/v1/monitoring/products",
        row_query(TOTALS, lambda _: ALL, _totals),
        name="getProductTotals",
        summary="Get totals over all products",
        tag="products",
        routed=True,
        answers={200: Answer("The current totals", ProductTotals)},
    ),
)

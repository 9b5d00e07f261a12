"""`GET /v1/monitoring/products`: totals over all products."""

from product_subscribers.monitoring.processors import ALL
from product_subscribers.monitoring.state import TOTALS
from runtime.hosting import Answer
from runtime.http.answers import answer
from runtime.http.queries import row_query
from schemas.api import ProductTotals

ENDPOINTS = (
    row_query(
        "/v1/monitoring/products",
        TOTALS,
        ALL,
        lambda _, found: answer(found or ProductTotals()),
        name="getProductTotals",
        summary="Get totals over all products",
        tag="products",
        answers={200: Answer("The current totals", ProductTotals)},
    ),
)

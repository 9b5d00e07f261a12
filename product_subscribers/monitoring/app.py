"""Monitoring: consumes products, holds totals, answers with them."""

from product_subscribers.monitoring import http
from product_subscribers.monitoring.counts import PRODUCTS_BY_SHOP, on_change, route
from product_subscribers.monitoring.state import COUNTED, TOTALS
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import PRODUCTS


def build(_settings: Settings) -> ServiceDefinition:
    """The service; it has no settings."""
    return ServiceDefinition(
        Service(
            name="product-monitoring",
            inputs=(Input(PRODUCTS, route), Input(PRODUCTS_BY_SHOP, on_change)),
            outputs=(PRODUCTS_BY_SHOP,),
            tables=(COUNTED.table, TOTALS),
        ),
        routes=http.routes,
        openapi=http.openapi,
    )

"""Monitoring: consumes products, aggregates totals, answers HTTP."""

from product_subscribers.monitoring import http
from product_subscribers.monitoring.processors import PRODUCTS_BY_SHOP, on_change
from product_subscribers.monitoring.state import COUNTED_PRODUCTS, TOTALS
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service, repartition_to
from runtime.state import versions
from schemas.messages import ProductEventKind
from schemas.topics import PRODUCTS


def build(_settings: Settings) -> ServiceDefinition:
    """Builds the service definition. There are no settings."""
    return ServiceDefinition(
        Service(
            name="product-monitoring",
            inputs=(Input(PRODUCTS, repartition_to(PRODUCTS_BY_SHOP)), Input(PRODUCTS_BY_SHOP, on_change)),
            outputs=(PRODUCTS_BY_SHOP,),
            tables=(COUNTED_PRODUCTS.table, TOTALS),
            events=(*versions.EVENTS, *(kind.lower() for kind in ProductEventKind)),
        ),
        endpoints=http.ENDPOINTS,
    )

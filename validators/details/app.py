"""The details validator: consumes products and orders by product, holds its verdicts, and gives them."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS
from validators.details.rule import ORDERS_BY_PRODUCT, DetailsCheck, on_timer, route
from validators.details.state import JUDGED, OFFERS


def build(settings: Settings) -> ServiceDefinition:
    """The service, with what it says of products it does not know."""
    return ServiceDefinition(
        Service(
            name="details",
            inputs=(
                Input(ORDERS, route),
                Input(ORDERS_BY_PRODUCT, DetailsCheck(settings.unknown_products).on_order),
                Input(PRODUCTS, OFFERS.on_product),
            ),
            outputs=(ORDERS_BY_PRODUCT, ORDER_VALIDATIONS),
            tables=(OFFERS.table, *JUDGED.tables),
            on_timer=on_timer,
        )
    )

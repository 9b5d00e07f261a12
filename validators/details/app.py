"""The details validator: consumes products and orders by product, holds its verdicts, and gives them."""

from runtime.common.settings import Settings
from runtime.hosting import Hosted
from runtime.model.service import Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS
from validators.details.rule import ORDERS_BY_PRODUCT, Judge, on_wake, route
from validators.details.state import JUDGED, OFFERS


def build(settings: Settings) -> Hosted:
    """The service, with what it says of products it does not know."""
    return Hosted(
        Service(
            name="details",
            inputs=(
                Input(ORDERS, route),
                Input(ORDERS_BY_PRODUCT, Judge(settings.unknown_products).on_order),
                Input(PRODUCTS, OFFERS.on_product),
            ),
            outputs=(ORDERS_BY_PRODUCT, ORDER_VALIDATIONS),
            tables=(OFFERS.table, *JUDGED.tables),
            on_wake=on_wake,
        )
    )

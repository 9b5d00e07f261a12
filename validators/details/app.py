"""Details validator: consumes orders and products, keeps past verdicts, produces verdicts."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Expiring, Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS
from validators.details.processors import ORDERS_BY_PRODUCT, DetailsCheck, check_fields
from validators.details.settings import DetailsSettings
from validators.details.state import OFFERS, VERDICTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(DetailsSettings)
    return ServiceDefinition(
        Service(
            name="details",
            inputs=(
                Input(ORDERS, check_fields),
                Input(ORDERS_BY_PRODUCT, DetailsCheck(own.unknown_products).on_order),
                Input(PRODUCTS, OFFERS.on_product),
            ),
            outputs=(ORDERS_BY_PRODUCT, ORDER_VALIDATIONS),
            tables=(OFFERS.table,),
            ttl_tables=(Expiring(VERDICTS),),
        )
    )

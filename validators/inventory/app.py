"""Inventory validator: consumes stock, products and orders, keeps reservations, produces verdicts."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Expiring, Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS, WAREHOUSE_INVENTORY
from validators.inventory import processors
from validators.inventory.state import OFFERS, RESERVATIONS, STOCK


def build(_settings: Settings) -> ServiceDefinition:
    """Builds the service definition. There are no settings."""
    return ServiceDefinition(
        Service(
            name="inventory",
            inputs=(
                Input(ORDERS, processors.repartition_order),
                Input(processors.ORDERS_BY_PRODUCT, processors.on_order),
                Input(WAREHOUSE_INVENTORY, processors.on_stock, on_tombstone=processors.on_stock_withdrawn),
                Input(PRODUCTS, OFFERS.on_product),
            ),
            outputs=(processors.ORDERS_BY_PRODUCT, ORDER_VALIDATIONS),
            tables=(STOCK, OFFERS.table),
            ttl_tables=(Expiring(RESERVATIONS),),
        )
    )

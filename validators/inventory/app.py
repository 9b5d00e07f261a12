"""Inventory validator: consumes stock, products and orders, keeps reservations, produces verdicts."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS, WAREHOUSE_INVENTORY
from validators.inventory import rule
from validators.inventory.state import OFFERS, RESERVATIONS, STOCK


def build(_settings: Settings) -> ServiceDefinition:
    """Builds the service definition. There are no settings."""
    return ServiceDefinition(
        Service(
            name="inventory",
            inputs=(
                Input(ORDERS, rule.repartition_order),
                Input(rule.ORDERS_BY_PRODUCT, rule.on_order),
                Input(WAREHOUSE_INVENTORY, rule.on_stock, on_tombstone=rule.on_stock_withdrawn),
                Input(PRODUCTS, OFFERS.on_product),
            ),
            outputs=(rule.ORDERS_BY_PRODUCT, ORDER_VALIDATIONS),
            tables=(STOCK, OFFERS.table, *RESERVATIONS.tables),
            on_timer=rule.on_timer,
        )
    )

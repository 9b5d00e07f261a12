"""Inventory validator: consumes stock, products and orders, keeps reservations, produces verdicts."""

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Start
from runtime.validator import validator
from schemas.messages import BuiltInCheck
from schemas.topics import PRODUCTS, WAREHOUSE_INVENTORY
from validators.inventory import processors
from validators.inventory.state import OFFERS, RESERVATIONS, STOCK


def build(_settings: Settings) -> ServiceDefinition:
    """Builds the service definition. There are no settings."""
    return validator(
        "inventory",
        BuiltInCheck.INVENTORY_CHECK,
        judge=processors.reserve,
        by=("product", lambda o: o.product),
        on_change=processors.on_change,
        verdicts=RESERVATIONS,
        inputs=(
            Input(WAREHOUSE_INVENTORY, processors.on_stock, on_tombstone=processors.on_stock_withdrawn),
            Input(PRODUCTS, OFFERS.on_product),
        ),
        tables=(STOCK, OFFERS.table),
        start=Start.BEGINNING,
        events=processors.EVENTS,
    )

"""Security: consumes products, compares each change with the previous ones, produces alerts."""

from datetime import timedelta
from decimal import Decimal

from product_subscribers.security.rule import AlertRule
from product_subscribers.security.state import HISTORIES
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    rule = AlertRule(
        Decimal(str(settings.product_price_drop_limit)),
        settings.product_changes_limit,
        timedelta(seconds=settings.product_changes_window_s),
        settings.currency,
        at_least_once=settings.at_least_once,
    )
    return ServiceDefinition(
        Service(
            name="product-security",
            inputs=(Input(PRODUCTS, rule.on_change),),
            outputs=(PRODUCT_ALERTS,),
            tables=(HISTORIES.table,),
        )
    )

"""Security: consumes products, compares each change with the previous ones, produces alerts."""

from datetime import timedelta
from decimal import Decimal

from product_subscribers.security.processors import AlertRule, event_of
from product_subscribers.security.settings import ProductSecuritySettings
from product_subscribers.security.state import HISTORIES
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from runtime.state import versions
from schemas.messages import ProductAlertKind
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(ProductSecuritySettings)
    rule = AlertRule(
        Decimal(str(own.product_price_drop_limit)),
        own.product_changes_limit,
        timedelta(seconds=own.product_changes_window_s),
        own.currency,
    )
    return ServiceDefinition(
        Service(
            name="product-security",
            inputs=(Input(PRODUCTS, rule.on_change),),
            outputs=(PRODUCT_ALERTS,),
            tables=(HISTORIES.table,),
            events=(*versions.EVENTS, *(event_of(kind) for kind in ProductAlertKind)),
        )
    )

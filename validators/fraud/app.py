"""The fraud validator: consumes orders by customer, holds their sessions, produces verdicts."""

from datetime import timedelta
from decimal import Decimal

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from validators.fraud.rule import ORDERS_BY_CUSTOMER, FraudCheck, route
from validators.fraud.state import CUSTOMERS, JUDGED


def build(settings: Settings) -> ServiceDefinition:
    """The service, with its gap and its limit."""
    gap, limit = timedelta(seconds=settings.fraud_session_gap_s), Decimal(str(settings.fraud_limit))
    judge = FraudCheck(gap, limit, settings.currency)
    return ServiceDefinition(
        Service(
            name="fraud",
            inputs=(Input(ORDERS, route), Input(ORDERS_BY_CUSTOMER, judge.on_order)),
            outputs=(ORDERS_BY_CUSTOMER, ORDER_VALIDATIONS),
            tables=(CUSTOMERS, *JUDGED.tables),
            on_timer=judge.on_timer,
        )
    )

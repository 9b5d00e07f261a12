"""Fraud validator: consumes orders by customer, keeps session windows, produces verdicts."""

from datetime import timedelta
from decimal import Decimal

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Expiring, Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from validators.fraud.processors import ORDERS_BY_CUSTOMER, FraudCheck, delete_inactive_customer, repartition_order
from validators.fraud.settings import FraudSettings
from validators.fraud.state import CUSTOMERS, VERDICTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(FraudSettings)
    gap, limit = timedelta(seconds=own.fraud_session_gap_s), Decimal(str(own.fraud_limit))
    check = FraudCheck(gap, limit, own.currency)
    return ServiceDefinition(
        Service(
            name="fraud",
            inputs=(Input(ORDERS, repartition_order), Input(ORDERS_BY_CUSTOMER, check.on_order)),
            outputs=(ORDERS_BY_CUSTOMER, ORDER_VALIDATIONS),
            tables=(CUSTOMERS,),
            ttl_tables=(Expiring(VERDICTS, delete_inactive_customer),),
        )
    )

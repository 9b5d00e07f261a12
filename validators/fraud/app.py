"""Fraud validator: consumes orders by customer, keeps session windows, produces verdicts."""

from datetime import timedelta
from decimal import Decimal

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Start
from runtime.validator import validator
from schemas.messages import BuiltInCheck
from validators.fraud.processors import FraudCheck, delete_inactive_customer
from validators.fraud.settings import FraudSettings
from validators.fraud.state import CUSTOMERS, VERDICTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(FraudSettings)
    gap, limit = timedelta(seconds=own.fraud_session_gap_s), Decimal(str(own.fraud_limit))
    return validator(
        "fraud",
        BuiltInCheck.FRAUD_CHECK,
        judge=FraudCheck(gap, limit, own.currency).judge,
        by=("customer", lambda o: str(o.customer_id)),
        verdicts=VERDICTS,
        on_expired=delete_inactive_customer,
        tables=(CUSTOMERS,),
        start=Start.BEGINNING,
    )

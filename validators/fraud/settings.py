"""Settings of the fraud validator."""

from pydantic import Field

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class FraudSettings(ServiceSettings):
    """Limit and session of a customer."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    fraud_limit: float = Field(
        default=2000, gt=0, description="Total value of a customer's session at which its orders fail"
    )
    fraud_session_gap_s: float = Field(
        default=3600.0, gt=0, description="Seconds without an order that end a customer's session"
    )

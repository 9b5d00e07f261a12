"""Settings of CREDIT_CHECK: each field is an environment variable."""

from decimal import Decimal

from pydantic import Field
from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class CreditSettings(ServiceSettings):
    """Credit limit of a customer."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    credit_limit: Decimal = Field(default=Decimal(1000), gt=0, description="Value above which an order fails")

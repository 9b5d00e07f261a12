"""Settings of the email service."""

from pydantic import Field

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class EmailSettings(ServiceSettings):
    """How long e-mails wait for a customer, and orders for their payment."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    email_window_s: float = Field(
        default=60.0,
        gt=0,
        le=7 * 24 * 3600,
        description="Seconds that e-mails wait for an unknown customer",
    )
    email_unpaid_days: float = Field(
        default=90.0,
        ge=7,
        le=3650,
        description="Days for which an order that is not paid in full can still be confirmed by e-mail",
    )

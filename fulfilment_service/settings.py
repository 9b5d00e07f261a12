"""Settings of the fulfilment service."""

from pydantic import Field

from runtime.common.settings import CommaSeparated, ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class FulfilmentSettings(ServiceSettings):
    """Prerequisites of shipping, and the patience of check-ins."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    fulfilment_needs: CommaSeparated[str] = Field(
        default=("VALIDATED", "PAID", "CHECKED_IN"),
        description="Prerequisites of shipping an order, comma separated",
    )
    checkin_patience_s: float = Field(default=60.0, gt=0, description="Seconds that a check-in waits for its order")
    payment_deadline_s: float = Field(
        default=0.0, ge=0, description="Seconds after which a validated order that is not paid is cancelled; 0: never"
    )

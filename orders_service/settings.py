"""Settings of the orders service."""

from pydantic import Field

from runtime.common.settings import CommaSeparated, ServiceSettings


class OrdersSettings(ServiceSettings):
    """Required checks, and the deadline of their verdicts."""

    required_checks: CommaSeparated[str] = Field(
        default=("FRAUD_CHECK", "INVENTORY_CHECK", "ORDER_DETAILS_CHECK"),
        description="Checks an order must pass, comma separated",
    )
    validation_deadline_s: float = Field(
        default=60.0, gt=0, description="Seconds after which missing verdicts fail an order"
    )

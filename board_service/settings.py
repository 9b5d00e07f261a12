"""Settings of the board service."""

from pydantic import Field

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class BoardSettings(ServiceSettings):
    """Where the board finds other services, and the settings of other services that it refers to."""

    board_orders_url: str | None = Field(
        default=None,
        description="Base URL of a worker with the orders service, for the board's form and timelines; default: found "
        "by its consumer group",
    )
    board_history_url: str | None = Field(
        default=None,
        description="Base URL of a worker with the history service, for the board's search and timelines; default: a "
        "worker that runs it beside other services",
    )

    currency: OrderCurrency = DEFAULT_CURRENCY
    fraud_limit: float = Field(
        default=2000, gt=0, description="Total value of a customer's session at which its orders fail"
    )
    fraud_session_gap_s: float = Field(
        default=3600.0, gt=0, description="Seconds without an order that end a customer's session"
    )

"""Settings of the orders service."""

from pydantic import Field

from runtime.common.settings import CommaSeparated, ServiceSettings
from schemas.messages import BuiltInCheck, CheckType


class OrdersSettings(ServiceSettings):
    """Required checks, and the deadline of their verdicts."""

    required_checks: CommaSeparated[CheckType] = Field(
        default=tuple(check.value for check in BuiltInCheck),
        description="Checks an order must pass, comma separated, until `orders checks` sets others",
    )
    validation_deadline_s: float = Field(
        default=60.0, gt=0, description="Seconds after which missing verdicts fail an order"
    )

"""Settings of the history service."""

from pydantic import Field, SecretStr

from runtime.common.settings import CommaSeparated, ServiceSettings
from schemas.messages import BuiltInCheck, CheckType
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class HistorySettings(ServiceSettings):
    """Database, how long it keeps records, and the settings of other services that explanations refer to."""

    history_database_url: SecretStr | None = Field(
        default=None, description="Database of the history of orders; a large one"
    )
    history_retention_months: int = Field(
        default=0,
        ge=0,
        le=1200,
        description="Months that the history keeps records, the current one not counted; 0: for ever",
    )

    currency: OrderCurrency = DEFAULT_CURRENCY
    fraud_limit: float = Field(
        default=2000, gt=0, description="Total value of a customer's session at which its orders fail"
    )
    fraud_session_gap_s: float = Field(
        default=3600.0, gt=0, description="Seconds without an order that end a customer's session"
    )
    required_checks: CommaSeparated[CheckType] = Field(
        default=tuple(check.value for check in BuiltInCheck),
        description="Checks an order must pass, comma separated, until `orders checks` sets others",
    )

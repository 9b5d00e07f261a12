"""Settings of the history service."""

from pydantic import Field, SecretStr

from runtime.common.settings import ServiceSettings


class HistorySettings(ServiceSettings):
    """Database, and how long it keeps records."""

    history_database_url: SecretStr | None = Field(
        default=None, description="Database of the history of orders; a large one"
    )
    history_retention_months: int = Field(
        default=0,
        ge=0,
        le=1200,
        description="Months that the history keeps records, the current one not counted; 0: for ever",
    )

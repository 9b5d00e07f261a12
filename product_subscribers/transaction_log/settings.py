"""Settings of the transaction log."""

from pydantic import Field, SecretStr

from runtime.common.settings import ServiceSettings


class ProductLogSettings(ServiceSettings):
    """Database of the log."""

    product_log_database_url: SecretStr | None = Field(default=None, description="Database of the log of products")

"""Settings of the product service."""

from pydantic import Field, SecretStr

from runtime.common.settings import ServiceSettings


class ProductsSettings(ServiceSettings):
    """Database of products."""

    products_database_url: SecretStr | None = Field(default=None, description="Database of the product service")

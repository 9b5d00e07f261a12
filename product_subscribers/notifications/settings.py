"""Settings of the notifications."""

from pydantic import Field, field_validator

from runtime.common.settings import CommaSeparated, ServiceSettings
from schemas.addresses import address
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class ProductNotificationsSettings(ServiceSettings):
    """Recipients."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    product_notifications_to: CommaSeparated[str] = Field(
        default=(),
        description="Recipients of an e-mail for each change of a product and each alert, comma separated",
    )

    @field_validator("product_notifications_to")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                address(one)
            except ValueError:
                raise ValueError(f"{one!r} is no address such as shop@example.org") from None
        return value

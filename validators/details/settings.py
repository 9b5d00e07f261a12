"""Settings of the details validator."""

from enum import StrEnum

from pydantic import Field

from runtime.common.settings import ServiceSettings


class UnknownProducts(StrEnum):
    FAIL = "fail"
    PASS = "pass"


class DetailsSettings(ServiceSettings):
    """Verdict on unknown products."""

    unknown_products: UnknownProducts = Field(
        default=UnknownProducts.FAIL,
        description="`fail` or `pass`: orders for products that the product service has not published",
    )

"""Settings of the details validator."""

from enum import StrEnum

from pydantic import Field

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class UnknownProducts(StrEnum):
    FAIL = "fail"
    PASS = "pass"


class OrderPrices(StrEnum):
    ANY = "any"
    CATALOGUE = "catalogue"


class DetailsSettings(ServiceSettings):
    """Verdicts on unknown products and on prices."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    unknown_products: UnknownProducts = Field(
        default=UnknownProducts.FAIL,
        description="`fail` or `pass`: orders for products that the product service has not published",
    )
    order_prices: OrderPrices = Field(
        default=OrderPrices.ANY,
        description="`any` or `catalogue`: the latter fails orders whose price is not that of the product when ordered",
    )
    price_grace_s: float = Field(
        default=300.0,
        ge=0,
        le=1e9,
        description="Seconds after a product's price changed in which orders may still have the previous price",
    )

"""Settings of the security subscriber."""

from pydantic import Field

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class ProductSecuritySettings(ServiceSettings):
    """Limits beyond which a change of a product is suspicious."""

    currency: OrderCurrency = DEFAULT_CURRENCY
    product_price_drop_limit: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="Share of its price above which a product's loss in one change is suspicious",
    )
    product_changes_limit: int = Field(
        default=10, ge=1, description="Changes of a product within the window above which they are suspicious"
    )
    product_changes_window_s: float = Field(
        default=60.0, gt=0, description="Seconds, the window in which changes of a product are counted"
    )

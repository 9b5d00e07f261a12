"""Settings of the `orders` command, besides those of runtime and services."""

from runtime.common.settings import ServiceSettings
from schemas.money import DEFAULT_CURRENCY, OrderCurrency


class CommandSettings(ServiceSettings):
    """Currency of orders that commands place, pay and audit."""

    currency: OrderCurrency = DEFAULT_CURRENCY

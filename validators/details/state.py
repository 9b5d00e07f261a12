"""State of the details validator: products with their prices."""

from datetime import datetime, timedelta
from typing import Self

from pydantic import AwareDatetime

from schemas.messages import ProductEvent
from schemas.wire import Money
from validators.offers import Offer, Offers


class PricedOffer(Offer):
    """Row of a product with its price since a time, and the price before. Rows of earlier versions have no prices.

    `previous` is equal to `price` if there was no other, and `None` if it is unknown.
    """

    price: Money | None = None
    since: AwareDatetime | None = None
    previous: Money | None = None

    @classmethod
    def after(cls, event: ProductEvent, before: Self | None) -> Self:
        row = super().after(event, before)
        if before is not None and before.price == event.price:
            prices = {"price": before.price, "since": before.since, "previous": before.previous}
        else:
            previous = before.price if before else event.price if event.version == 1 else None
            prices = {"price": event.price, "since": event.at, "previous": previous}
        return row.model_copy(update=prices)

    def prices_at(self, at: datetime, grace: timedelta) -> tuple[Money | None, ...]:
        """The prices of an order created at a time, that of the product first; `None` is an unknown price.

        The previous price is accepted for `grace` after a change.
        """
        if self.since is None or at < self.since:
            return (self.previous,)
        # A difference, not a sum: a time near the limits of `datetime` must not overflow.
        return (self.price, self.previous) if at - self.since <= grace else (self.price,)


OFFERS = Offers("details-products", PricedOffer)

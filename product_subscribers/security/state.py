"""State of security: the recent history of each product."""

from datetime import datetime

from runtime.state.versions import Versioned, VersionedTable
from schemas.wire import Money


class ProductHistory(Versioned):
    """Last change of a product.

    `price` is the price since, `recent` the times of the recent changes, `too_many` whether they exceeded the limit.
    """

    price: Money
    recent: tuple[datetime, ...] = ()
    too_many: bool = False


HISTORIES = VersionedTable("product-security-watched", ProductHistory)

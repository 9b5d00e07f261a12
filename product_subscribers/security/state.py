"""What security holds: of each product what its next change is compared with."""

from datetime import datetime

from runtime.state.versions import Versioned, VersionedTable
from schemas.messages import ProductAlert
from schemas.wire import Money


class ProductHistory(Versioned):
    """The last change of a product: the price since, when the latest changes were, and whether they were too many.

    `alerts` are the latest ones, if they may have to be sent again.
    """

    price: Money
    recent: tuple[datetime, ...] = ()
    too_many: bool = False
    alerts: tuple[ProductAlert, ...] = ()


HISTORIES = VersionedTable("product-security-watched", ProductHistory)

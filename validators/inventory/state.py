"""State of the inventory validator: stock and offer per product, reservation per order."""

from runtime.model.service import Table
from runtime.state.ttl_table import ExpiringRow, TtlTable
from schemas.wire import Message
from validators.offers import Offers


class Stock(Message):
    """Stock of a product in pieces.

    `count` is the warehouse's count (`None`: never announced), `reserved` the pieces held by orders.
    """

    count: int | None = None
    reserved: int = 0


class Reservation(ExpiringRow):
    """Past verdict on an order (PASS, or FAIL for the reason `refusal`) and the pieces it holds now.

    A row that holds pieces stays until they are released; the stock bounds their number. A row that holds none expires:
    until then, a replayed order neither reserves nor releases again.
    """

    product: str
    held: int = 0
    refusal: str | None = None


STOCK = Table("inventory-stock", Stock)
OFFERS = Offers("inventory")
RESERVATIONS = TtlTable("inventory-reservations", Reservation)

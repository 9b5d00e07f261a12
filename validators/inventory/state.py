"""What the inventory validator holds: stock and offer of each product, and a reservation for each order."""

from runtime.model.service import Table
from runtime.state.ttl_table import ExpiringRow, TtlTable
from schemas.wire import Message
from validators.offers import Offers


class Stock(Message):
    """Pieces of a product: how many the warehouse announced (`None`: it did not), and how many of them are reserved."""

    count: int | None = None
    reserved: int = 0


class Reservation(ExpiringRow):
    """What was said to an order, a PASS unless there is a refusal, and the pieces it holds now.

    One that holds pieces stays until it gives them back; there are no more of these than pieces in stock. One that
    holds none is only remembered for a while, so that an order seen again neither takes nor gives back a second time.
    """

    product: str
    held: int = 0
    refusal: str | None = None


STOCK = Table("inventory-stock", Stock)
OFFERS = Offers("inventory")
RESERVATIONS = TtlTable("inventory-reservations", Reservation)

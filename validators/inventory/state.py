"""State of the inventory validator: stock and offer per product, reservation per order and attempt."""

from runtime.model.service import Context, Table
from runtime.state.ttl_table import TtlTable
from runtime.validator import VerdictRow
from schemas.wire import Message
from validators.offers import Offer, Offers


class Stock(Message):
    """Stock of a product in pieces.

    `count` is the warehouse's count (`None`: never announced), `reserved` the pieces held by orders.
    """

    count: int | None = None
    reserved: int = 0


class Reservation(VerdictRow):
    """Past verdict on an order (PASS, or FAIL for the reason `refusal`) and the pieces it holds now.

    A row that holds pieces stays until they are released; the stock bounds their number. A row that holds none expires:
    until then, a replayed order neither reserves nor releases again.

    `failed`: whether the attempt to decide the order has failed, so that a later one may reserve. Rows of earlier
    versions do not have it.
    """

    product: str
    held: int = 0
    failed: bool | None = None


class Reservations(TtlTable[Reservation]):
    """Table of reservations by order and attempt."""

    def add(self, ctx: Context, key: str, row: Reservation) -> Reservation:
        """Adds a row; it expires unless it holds pieces."""
        if not row.held:
            return super().add(ctx, key, row)
        ctx.put(self.rows, key, row)
        return row


STOCK = Table("inventory-stock", Stock)
OFFERS = Offers("inventory-products", Offer)
RESERVATIONS = Reservations("inventory-reservations", Reservation)

"""What the details validator holds: which products are on offer, and for a while its verdict on each order."""

from runtime.state.ttl_table import ExpiringRow, TtlTable
from validators.offers import Offers


class Judged(ExpiringRow):
    """The verdict on an order: a PASS, unless there is a refusal."""

    refusal: str | None = None


OFFERS = Offers("details")
JUDGED = TtlTable("details-judged", Judged)

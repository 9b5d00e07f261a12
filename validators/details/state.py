"""What the details validator holds: which products are on offer, and for a while its verdict on each order."""

from runtime.state.ttl_table import Memory, Remembered
from validators.offers import Offers


class Judged(Remembered):
    """The verdict on an order: a PASS, unless there is a refusal."""

    refusal: str | None = None


OFFERS = Offers("details")
JUDGED = Memory("details-judged", Judged)

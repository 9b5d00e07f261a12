"""State of the details validator: products, and past verdicts with a TTL."""

from runtime.state.ttl_table import ExpiringRow, TtlTable
from validators.offers import Offers


class VerdictRow(ExpiringRow):
    """Past verdict on an order: PASS, or FAIL for the reason `refusal`."""

    refusal: str | None = None


OFFERS = Offers("details")
VERDICTS = TtlTable("details-judged", VerdictRow)

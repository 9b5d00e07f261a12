"""What monitoring holds: the totals, and of each product what they have counted last. All of it in one partition."""

from runtime.model.service import Table
from runtime.state.versions import Versioned, VersionedTable
from schemas.api import ProductTotals


class CountedProduct(Versioned):
    """The last change of a product that is in the totals, and whether the product is on offer since."""

    on_offer: bool


COUNTED_PRODUCTS = VersionedTable("product-monitoring-counted", CountedProduct)
TOTALS = Table("product-monitoring-totals", ProductTotals)

"""State of monitoring, all in one partition: the totals, and the last counted change of each product."""

from runtime.model.service import Table
from runtime.state.versions import Versioned, VersionedTable
from schemas.api import ProductTotals


class CountedProduct(Versioned):
    """Last change of a product that is included in the totals, and whether the product is on offer."""

    on_offer: bool


COUNTED_PRODUCTS = VersionedTable("product-monitoring-counted", CountedProduct)
TOTALS = Table("product-monitoring-totals", ProductTotals)

"""A validator's view of the products: which exist, and which are withdrawn."""

from runtime.model.service import Context, Table
from runtime.state.versions import Versioned, VersionedTable
from schemas.messages import ProductEvent, ProductEventKind


class Offer(Versioned):
    """Row of an announced product, and whether it is withdrawn now."""

    withdrawn: bool = False


class Offers:
    """Table of the products known to one validator.

    The service lists `table`, and processes `products` with `on_product`.
    """

    def __init__(self, service: str) -> None:
        self._versions = VersionedTable(f"{service}-products", Offer)

    @property
    def table(self) -> Table[Offer]:
        return self._versions.table

    def get(self, ctx: Context, product: str) -> Offer | None:
        return self._versions.get(ctx, product)

    def on_product(self, event: ProductEvent, ctx: Context) -> None:
        """Updates a product. A repeated or outdated event changes nothing."""
        if self._versions.gap_before(ctx, event.code, event.version) is not None:
            withdrawn = event.kind is ProductEventKind.WITHDRAWN
            self._versions.put(ctx, event.code, Offer(version=event.version, withdrawn=withdrawn))

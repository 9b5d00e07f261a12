"""Which products are on offer, as a validator knows it from the product service's events."""

from runtime.model.service import Context, Table
from runtime.state.versions import Versioned, VersionedTable
from schemas.messages import ProductEvent, ProductEventKind


class Offer(Versioned):
    """A product that was announced, and whether it was withdrawn since."""

    withdrawn: bool = False


class Offers:
    """What one validator knows, in a table of its own: it lists `table`, and gives `on_product` what is announced."""

    def __init__(self, service: str) -> None:
        self._versions = VersionedTable(f"{service}-products", Offer)

    @property
    def table(self) -> Table[Offer]:
        return self._versions.table

    def get(self, ctx: Context, product: str) -> Offer | None:
        return self._versions.get(ctx, product)

    def on_product(self, event: ProductEvent, ctx: Context) -> None:
        """A change of a product. One that comes again or late changes nothing."""
        if self._versions.missing(ctx, event.code, event.version) is not None:
            withdrawn = event.kind is ProductEventKind.WITHDRAWN
            self._versions.put(ctx, event.code, Offer(version=event.version, withdrawn=withdrawn))

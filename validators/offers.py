"""A validator's view of the products: which exist, and which are withdrawn."""

from typing import Self, TypeVar

from runtime.model.service import Context
from runtime.state.versions import Versioned, VersionedTable
from schemas.messages import ProductEvent, ProductEventKind


class Offer(Versioned):
    """Row of an announced product, and whether it is withdrawn now."""

    withdrawn: bool = False

    @classmethod
    def after(cls, event: ProductEvent, _before: Self | None) -> Self:
        """Returns the row after a change of the product."""
        return cls(version=event.version, withdrawn=event.kind is ProductEventKind.WITHDRAWN)


R = TypeVar("R", bound=Offer)


class Offers(VersionedTable[R]):
    """Table of the products known to one validator, which processes `products` with `on_product`."""

    def on_product(self, event: ProductEvent, ctx: Context) -> None:
        """Updates a product. A repeated or outdated event changes nothing."""
        if self.gap_before(ctx, event.code, event.version) is not None:
            self.put(ctx, event.code, self.table.model.after(event, self.get(ctx, event.code)))

"""A validator's view of the products: which exist, and which are withdrawn."""

from typing import Generic, Self, TypeVar

from runtime.model.service import Context, Table
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


class Offers(Generic[R]):
    """Table of the products known to one validator.

    The service lists `table`, and processes `products` with `on_product`.
    """

    def __init__(self, service: str, model: type[R]) -> None:
        self._versions = VersionedTable(f"{service}-products", model)
        self._model = model

    @property
    def table(self) -> Table[R]:
        return self._versions.table

    def get(self, ctx: Context, product: str) -> R | None:
        return self._versions.get(ctx, product)

    def on_product(self, event: ProductEvent, ctx: Context) -> None:
        """Updates a product. A repeated or outdated event changes nothing."""
        if self._versions.gap_before(ctx, event.code, event.version) is not None:
            self._versions.put(ctx, event.code, self._model.after(event, self.get(ctx, event.code)))

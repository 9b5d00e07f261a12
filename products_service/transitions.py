"""State transitions of a product, under optimistic locking. Pure."""

from decimal import Decimal

from runtime.http.conditional import ExpectedVersions, check_version
from schemas.api import Product, ProductContent, ProductState


class Withdrawn(Exception):
    """The product is withdrawn; the client must name its version to offer it again."""


def change(product: Product, content: ProductContent, expected: ExpectedVersions) -> Product | None:
    """Returns the next version, on offer with this content; `None` if nothing changes.

    Nothing changes in a repeated request. Raises `StaleVersion`. Raises `Withdrawn` for a request without a version,
    which may have been sent before the withdrawal.
    """
    if product.state is ProductState.ACTIVE and not product.differing(content, "name", "price"):
        return None
    check_version(product.version, expected)
    if product.state is ProductState.WITHDRAWN and expected is None:
        raise Withdrawn
    return _next_version(product, name=content.name, price=content.price, state=ProductState.ACTIVE)


def withdraw(product: Product, expected: ExpectedVersions) -> Product | None:
    """Returns the next version, withdrawn; `None` if it is withdrawn already. Raises `StaleVersion`."""
    if product.state is ProductState.WITHDRAWN:
        return None
    check_version(product.version, expected)
    return _next_version(product, state=ProductState.WITHDRAWN)


def _next_version(product: Product, **changes: str | Decimal) -> Product:
    return product.model_copy(update={**changes, "version": product.version + 1})

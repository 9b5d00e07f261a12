"""What may become of a product, and who may have it so. Pure."""

from collections.abc import Collection
from decimal import Decimal

from schemas.api import Product, ProductContent, ProductState

Expected = Collection[int] | None
"""The versions a client has seen, one of which the product must have; `None`: whichever it has."""


class StaleVersion(Exception):
    """The product has another version than the client has seen."""


class Withdrawn(Exception):
    """The product was withdrawn, and comes back only for who says to have seen that."""


def differing(product: Product, content: ProductContent) -> list[str]:
    """The fields in which they differ."""
    return [name for name in ("name", "price") if getattr(product, name) != getattr(content, name)]


def changed(product: Product, content: ProductContent, expected: Expected) -> Product | None:
    """The next version, on offer with this content; `None` if it is so already: the request is repeated, perhaps.

    Raises `StaleVersion` and `Withdrawn`: a request that was sent before the withdrawal and comes late changes nothing.
    """
    if product.state is ProductState.ACTIVE and not differing(product, content):
        return None
    _see(product, expected)
    if product.state is ProductState.WITHDRAWN and expected is None:
        raise Withdrawn
    return _next(product, name=content.name, price=content.price, state=ProductState.ACTIVE)


def withdrawn(product: Product, expected: Expected) -> Product | None:
    """The next version, withdrawn; `None` if it is so already. Raises `StaleVersion`."""
    if product.state is ProductState.WITHDRAWN:
        return None
    _see(product, expected)
    return _next(product, state=ProductState.WITHDRAWN)


def _see(product: Product, expected: Expected) -> None:
    if expected is not None and product.version not in expected:
        raise StaleVersion


def _next(product: Product, **changes: str | Decimal) -> Product:
    return product.model_copy(update={**changes, "version": product.version + 1})

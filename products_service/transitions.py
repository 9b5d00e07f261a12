"""State transitions of a product, under optimistic locking. Pure."""

from collections.abc import Collection
from decimal import Decimal

from schemas.api import Product, ProductContent, ProductState

ExpectedVersions = Collection[int] | None
"""Versions known to the client, of which the product must have one; `None` accepts any version."""


class StaleVersion(Exception):
    """The product has another version than the client expects."""


class Withdrawn(Exception):
    """The product is withdrawn; the client must name its version to offer it again."""


def differing_fields(product: Product, content: ProductContent) -> list[str]:
    """Names of the fields that differ."""
    return [name for name in ("name", "price") if getattr(product, name) != getattr(content, name)]


def change(product: Product, content: ProductContent, expected: ExpectedVersions) -> Product | None:
    """Returns the next version, on offer with this content; `None` if nothing changes.

    Nothing changes in a repeated request. Raises `StaleVersion`. Raises `Withdrawn` for a request without a version,
    which may have been sent before the withdrawal.
    """
    if product.state is ProductState.ACTIVE and not differing_fields(product, content):
        return None
    _check_version(product, expected)
    if product.state is ProductState.WITHDRAWN and expected is None:
        raise Withdrawn
    return _next_version(product, name=content.name, price=content.price, state=ProductState.ACTIVE)


def withdraw(product: Product, expected: ExpectedVersions) -> Product | None:
    """Returns the next version, withdrawn; `None` if it is withdrawn already. Raises `StaleVersion`."""
    if product.state is ProductState.WITHDRAWN:
        return None
    _check_version(product, expected)
    return _next_version(product, state=ProductState.WITHDRAWN)


def _check_version(product: Product, expected: ExpectedVersions) -> None:
    if expected is not None and product.version not in expected:
        raise StaleVersion


def _next_version(product: Product, **changes: str | Decimal) -> Product:
    return product.model_copy(update={**changes, "version": product.version + 1})

"""Aggregates totals over all products: changes are repartitioned to a single key. Pure."""

from product_subscribers.monitoring.state import COUNTED_PRODUCTS, TOTALS, CountedProduct
from runtime.model.service import Context
from schemas.api import ProductTotals
from schemas.messages import ProductEvent, ProductEventKind
from schemas.topics import PRODUCTS, repartition

ALL = "all"
"""Key of the totals."""

PRODUCTS_BY_SHOP = repartition("product-monitoring", PRODUCTS, "shop", lambda _: ALL)


def on_change(event: ProductEvent, ctx: Context) -> None:
    """Adds a change to the totals. A repeated or outdated one changes nothing."""
    gaps = COUNTED_PRODUCTS.gap_before(ctx, event.code, event.version)
    if gaps is None:
        return
    before = COUNTED_PRODUCTS.get(ctx, event.code)
    on_offer = event.kind is not ProductEventKind.WITHDRAWN
    COUNTED_PRODUCTS.put(ctx, event.code, CountedProduct(version=event.version, on_offer=on_offer))
    ctx.count(event.kind.lower())
    totals = ctx.get(TOTALS, ALL) or ProductTotals()
    kind = event.kind.lower()
    after = {
        kind: getattr(totals, kind) + 1,
        "on_offer": totals.on_offer + on_offer - (before is not None and before.on_offer),
        "gaps": totals.gaps + gaps,
        "last_change": max(event.at, totals.last_change or event.at),
    }
    ctx.put(TOTALS, ALL, totals.model_copy(update=after))

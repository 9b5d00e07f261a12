"""Security rules: a price that drops by nearly all of it, and many changes in a short time. Pure."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from product_subscribers.security.state import HISTORIES, ProductHistory
from runtime.model.service import Context
from schemas.messages import ProductAlert, ProductAlertKind, ProductEvent
from schemas.money import plain_amount
from schemas.topics import PRODUCT_ALERTS

_NAMESPACE = uuid.UUID("0d0c2c43-9a53-5b0d-8c7e-6f1b8f3c9a21")


def event_of(kind: ProductAlertKind) -> str:
    """The event that is counted for each alert of a kind."""
    return kind.lower().replace("_", " ")


class AlertRule:
    """Checks each change of a product, in event time.

    Arguments:
        drop: share of the price that one change may take away.
        changes: number of changes of a product allowed within `window`.
        window: length of the sliding window.
        currency: currency of prices.
    """

    def __init__(self, drop: Decimal, changes: int, window: timedelta, currency: str = "EUR") -> None:
        self.drop = drop
        self.changes = changes
        self.window = window
        self.currency = currency

    def on_change(self, event: ProductEvent, ctx: Context) -> None:
        """Compares a change with the history of its product, and sends alerts."""
        before = HISTORIES.get(ctx, event.code)
        if HISTORIES.gap_before(ctx, event.code, event.version) is None:
            return
        recent = self.recent_changes(before.recent if before else (), event.at)
        too_many = len(recent) > self.changes
        alerts = []
        if before is not None and self.is_price_drop(before.price, event.price):
            was, is_ = (plain_amount(price, self.currency) for price in (before.price, event.price))
            reason = f"the price fell from {was} to {is_}, by more than {_percent(self.drop)}"
            alerts.append(_alert(ProductAlertKind.PRICE_DROP, reason, event))
        if too_many and not (before is not None and before.too_many):
            reason = f"more than {self.changes} changes within {self.window.total_seconds():g} s"
            alerts.append(_alert(ProductAlertKind.MANY_CHANGES, reason, event))
        row = ProductHistory(version=event.version, price=event.price, recent=tuple(recent), too_many=too_many)
        HISTORIES.put(ctx, event.code, row)
        for alert in alerts:
            ctx.count(event_of(alert.kind))
            ctx.send(PRODUCT_ALERTS, alert)

    def is_price_drop(self, before: Decimal, after: Decimal) -> bool:
        """Whether a price drops by more than the allowed share."""
        return before - after > self.drop * before

    def recent_changes(self, times: Sequence[datetime], at: datetime) -> list[datetime]:
        """Times of the changes in the window that ends at `at`, with `at`; at most one more than allowed."""
        within = [time for time in times if abs(at - time) < self.window]  # `abs`: the clock may have been set back
        return [*within, at][-self.changes - 1 :]


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f} %"


def _alert(kind: ProductAlertKind, reason: str, event: ProductEvent) -> ProductAlert:
    return ProductAlert(
        event_id=str(uuid.uuid5(_NAMESPACE, f"{kind}/{event.event_id}")),
        kind=kind,
        code=event.code,
        version=event.version,
        reason=reason,
        at=event.at,
    )

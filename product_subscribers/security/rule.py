"""Security: a price that falls by nearly all of it, and many changes of one product in a short time. Pure."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from product_subscribers.security.state import HISTORIES, ProductHistory
from runtime.model.service import Context
from schemas.messages import ProductAlert, ProductAlertKind, ProductEvent
from schemas.money import plain_amount
from schemas.topics import PRODUCT_ALERTS

_ALERTS = uuid.UUID("0d0c2c43-9a53-5b0d-8c7e-6f1b8f3c9a21")


ALERTS_KEPT = 50
"""Of a product, at least once: more of them in one batch, interrupted by a crash, may be lost."""


class AlertRule:
    """Looks at each change of a product, by the times of the changes.

    Arguments:
        drop: share of its price that a product may lose in one change.
        changes: how many changes of a product there may be within `window`.
        window: of time.
        currency: of prices.
        at_least_once: whether alerts of a change that comes again are sent again: at least once, they may be missing.
    """

    def __init__(
        self, drop: Decimal, changes: int, window: timedelta, currency: str = "EUR", *, at_least_once: bool = False
    ) -> None:
        self.drop = drop
        self.changes = changes
        self.window = window
        self.currency = currency
        self.at_least_once = at_least_once

    def on_change(self, event: ProductEvent, ctx: Context) -> None:
        """Compares a change with what was before, and tells what is suspicious."""
        before = HISTORIES.get(ctx, event.code)
        if HISTORIES.gap_before(ctx, event.code, event.version) is None:
            if self.at_least_once and before is not None:
                _send([alert for alert in before.alerts if alert.version == event.version], ctx)
            return
        recent = self.recent(before.recent if before else (), event.at)
        too_many = len(recent) > self.changes
        alerts = []
        if before is not None and self.dropped(before.price, event.price):
            was, is_ = (plain_amount(price, self.currency) for price in (before.price, event.price))
            reason = f"the price fell from {was} to {is_}, by more than {_percent(self.drop)}"
            alerts.append(_alert(ProductAlertKind.PRICE_DROP, reason, event))
        if too_many and not (before is not None and before.too_many):
            reason = f"more than {self.changes} changes within {self.window.total_seconds():g} s"
            alerts.append(_alert(ProductAlertKind.MANY_CHANGES, reason, event))
        kept = (*(before.alerts if before else ()), *alerts)[-ALERTS_KEPT:] if self.at_least_once else ()
        row = ProductHistory(
            version=event.version, price=event.price, recent=tuple(recent), too_many=too_many, alerts=kept
        )
        HISTORIES.put(ctx, event.code, row)
        _send(alerts, ctx)

    def dropped(self, before: Decimal, after: Decimal) -> bool:
        """Whether a price has lost more than it may."""
        return before - after > self.drop * before

    def recent(self, times: Sequence[datetime], at: datetime) -> list[datetime]:
        """The times of the changes within the window that ends at `at`, this one included; as many as matter."""
        within = [time for time in times if abs(at - time) < self.window]  # a clock may have been put back
        return [*within, at][-self.changes - 1 :]


def _percent(share: Decimal) -> str:
    return f"{(share * 100).normalize():f} %"


def _alert(kind: ProductAlertKind, reason: str, event: ProductEvent) -> ProductAlert:
    return ProductAlert(
        event_id=str(uuid.uuid5(_ALERTS, f"{kind}/{event.event_id}")),
        kind=kind,
        code=event.code,
        version=event.version,
        reason=reason,
        at=event.at,
    )


def _send(alerts: Sequence[ProductAlert], ctx: Context) -> None:
    for alert in alerts:
        ctx.count(alert.kind.lower().replace("_", " "))
        ctx.send(PRODUCT_ALERTS, alert)

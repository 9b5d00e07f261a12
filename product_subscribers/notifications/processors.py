"""E-mails about changes of products and alerts: which are sent, and their text. Pure."""

import re
import uuid
from datetime import UTC, datetime
from email.message import EmailMessage

from product_subscribers.notifications.state import NOTIFIED, Notice
from runtime.mail import message
from runtime.model.service import Context, SideEffect
from runtime.state.versions import Versioned
from schemas.addresses import address
from schemas.messages import ProductAlert, ProductAlertKind, ProductEvent
from schemas.money import format_amount

_NAMESPACE = uuid.UUID("8f4d0a5e-2c6b-5f19-9d3a-7b1e4c8a6d52")
_ALERT_SUBJECTS = {
    ProductAlertKind.PRICE_DROP: "its price fell suspiciously",
    ProductAlertKind.MANY_CHANGES: "it changes suspiciously often",
}


class ProductNotifier:
    """Enqueues an e-mail to each address for each change and each alert.

    Arguments:
        to: addresses.
        send: side effect that sends an e-mail.
        currency: currency of prices.
    """

    def __init__(self, to: tuple[str, ...], send: SideEffect[Notice], currency: str) -> None:
        self.to = to
        self.send = send
        self.currency = currency

    def on_change(self, event: ProductEvent, ctx: Context) -> None:
        """Notifies of a change. A repeated or outdated one is ignored."""
        if NOTIFIED.gap_before(ctx, event.code, event.version) is None:
            return  # nothing is lost: its side effects are durable no later than this row
        NOTIFIED.put(ctx, event.code, Versioned(version=event.version))
        subject = f"Product {event.code}: {event.kind.lower()}"
        text = (
            f"{event.name}\n\nPrice    {format_amount(event.price, self.currency)}\n{_footer(event.version, event.at)}"
        )
        self._enqueue(event.event_id, subject, text, event.at, ctx)

    def on_alert(self, alert: ProductAlert, ctx: Context) -> None:
        """Notifies of an alert."""
        subject = f"Product {alert.code}: {_ALERT_SUBJECTS[alert.kind]}"
        text = f"{alert.reason}\n\n{_footer(alert.version, alert.at)}"
        self._enqueue(alert.event_id, subject, text, alert.at, ctx)

    def _enqueue(self, event_id: str, subject: str, text: str, at: datetime, ctx: Context) -> None:
        for to in self.to:
            notice = Notice(event_id=event_id, to=to, subject=subject, text=text, at=at)
            ctx.enqueue(self.send, f"{event_id}/{to}", notice)


def message_id(event_id: str, to: str, domain: str) -> str:
    """Message-ID of the e-mail about an event to an address."""
    return message.message_id(_NAMESPACE, f"{event_id}/{to}", domain)


def _footer(version: int, at: datetime) -> str:
    return f"Version  {version}\nSince    {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC\n"


def compose(notice: Notice, sender: str) -> EmailMessage:
    """Composes the e-mail. Raises `ValueError` for a malformed address or subject."""
    return message.compose_email(
        to=address(notice.to),
        name="",
        sender=sender,
        subject=notice.subject,
        at=_date(notice),
        message_id=message_id(notice.event_id, notice.to, message.message_id_domain(sender)),
        headers={"X-Event-Id": notice.event_id},
        text=notice.text,
    )


def _date(notice: Notice) -> datetime:
    """Time of the event. Notices of earlier versions have it in their text only."""
    if notice.at is not None:
        return notice.at
    found = re.search(r"^Since    (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", notice.text, re.MULTILINE)
    if found is None:
        return datetime(1970, 1, 1, tzinfo=UTC)
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)

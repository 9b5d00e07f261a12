"""State of notifications: the version of each product up to which e-mails were enqueued."""

from datetime import datetime

from runtime.state.versions import Versioned, VersionedTable
from schemas.wire import Message


class Notice(Message):
    """E-mail to one address about one event. Payload of the side effect.

    The event id identifies repetitions. `at` is the time of the event; notices of earlier versions do not have it.
    """

    event_id: str
    to: str
    subject: str
    text: str
    at: datetime | None = None


NOTIFIED = VersionedTable("product-notifications-told", Versioned)

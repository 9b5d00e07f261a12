"""What notifications hold: up to which version of each product letters are written, and the letters to be sent."""

from datetime import datetime

from runtime.state.versions import Versioned, VersionedTable
from schemas.wire import Message


class Notice(Message):
    """A letter to one address about one event, whose id makes it the same letter however often it is sent.

    `at` is when the event happened; letters of earlier versions do not have it.
    """

    event_id: str
    to: str
    subject: str
    text: str
    at: datetime | None = None


NOTIFIED = VersionedTable("product-notifications-told", Versioned)

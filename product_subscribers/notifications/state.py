"""What notifications hold: up to which version of each product letters are written, and the letters to be sent."""

from runtime.versions import Versioned, Versions
from schemas.wire import Message


class Notice(Message):
    """A letter to one address about one event, whose id makes it the same letter however often it is sent."""

    event_id: str
    to: str
    subject: str
    text: str


TOLD = Versions("product-notifications-told", Versioned)

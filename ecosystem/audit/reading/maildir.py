"""Reading delivered letters from a Maildir, as the mail server of `orders up` keeps them."""

from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from ecosystem.audit.facts import Fact, Source
from ecosystem.audit.report import AuditError
from email_service.compose import message_id
from email_service.state import EmailKind
from product_subscribers.notifications import emails as notices

_NEW = ("new", "cur")


def letters(folder: Path, began_ms: int) -> Iterator[tuple[bytes, Fact] | None]:
    """The order and the kind of every letter of ours, by its Message-ID, or the event and the address; `None` for any
    other.

    Arguments:
        folder: the Maildir.
        began_ms: letters that came later are late: that they were asked for may not be among what is read.

    Raises `AuditError` if it is no Maildir.
    """
    if not (folder / "new").is_dir():
        raise AuditError(f"{folder} is no Maildir: it has no folder 'new'")
    paths = (path for part in _NEW if (folder / part).is_dir() for path in (folder / part).iterdir())
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                headers = BytesHeaderParser().parse(file)
            at_ms = int(path.stat().st_mtime * 1000)
        except FileNotFoundError:
            continue  # read by somebody, who moved it: it is in `cur` now
        found = _of(headers)
        if found is None:
            yield None
        else:
            source, key, about = found
            yield key.encode(), Fact(source, 0, number, at_ms, at_ms >= began_ms, None, about)


def _of(headers: Message) -> tuple[Source, str, str] | None:
    order_id, event_id, to = (_said(headers, name) for name in ("X-Order-Id", "X-Event-Id", "To"))
    id_ = str(headers.get("Message-ID", "")).strip().partition("@")[0] + "@"
    if event_id and notices.message_id(event_id, to, "").startswith(id_):
        return Source.NOTICES_MAIL, event_id, to
    kinds = (kind for kind in EmailKind if message_id(order_id, kind, "").startswith(id_))
    kind = next(kinds, None)
    return None if kind is None else (Source.MAIL, order_id, kind)


def _said(headers: Message, name: str) -> str:
    """A header decoded (RFC 2047): an id may be any text."""
    value = str(headers.get(name, ""))
    try:
        return str(make_header(decode_header(value))).strip()
    except (HeaderParseError, LookupError, UnicodeError):  # somebody else's
        return value.strip()

"""Reads delivered e-mails from a Maildir, such as that of `orders up`."""

import re
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from ecosystem.audit.facts import Fact
from ecosystem.audit.report import AuditError
from ecosystem.audit.sources import Source
from email_service.emails import message_id
from email_service.state import EmailKind
from product_subscribers.notifications import processors as notices
from schemas.messages import ATTEMPT_SEPARATOR, FIRST_ATTEMPT

_FOLDERS = ("new", "cur")


def emails(folder: Path, start_ms: int) -> Iterator[tuple[bytes, Fact] | None]:
    """Yields every e-mail of the services with its order or event; `None` for any other e-mail.

    E-mails are recognised by their Message-ID. Raises `AuditError` if the folder is not a Maildir.

    Arguments:
        folder: the Maildir.
        start_ms: start of the audit. Later e-mails are late: their enqueueing may not be among the records read.
    """
    if not (folder / "new").is_dir():
        raise AuditError(f"{folder} is not a Maildir: it has no folder 'new'")
    paths = (path for part in _FOLDERS if (folder / part).is_dir() for path in (folder / part).iterdir())
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                headers = BytesHeaderParser().parse(file)
            at_ms = int(path.stat().st_mtime * 1000)
        except FileNotFoundError:
            continue  # somebody read it, so it was moved to `cur`
        found = _identify(headers)
        if found is None:
            yield None
        else:
            source, key, about = found
            yield key.encode(), Fact(source, 0, number, at_ms, at_ms >= start_ms, None, about)


def _identify(headers: Message) -> tuple[Source, str, str] | None:
    order_id, event_id, recipient = (_decoded(headers, name) for name in ("X-Order-Id", "X-Event-Id", "To"))
    id_ = str(headers.get("Message-ID", "")).strip().partition("@")[0] + "@"
    if event_id and notices.message_id(event_id, recipient, "").startswith(id_):
        return Source.NOTICES_DELIVERED, event_id, recipient
    given = str(headers.get("X-Order-Attempt", ""))
    attempt = int(given) if re.fullmatch("[0-9]{1,7}", given) else FIRST_ATTEMPT
    kinds = (kind for kind in EmailKind if message_id(order_id, kind, "", attempt).startswith(id_))
    kind = next(kinds, None)
    if kind is None:
        return None
    about = kind if attempt == FIRST_ATTEMPT else f"{kind}{ATTEMPT_SEPARATOR}{attempt}"
    return Source.EMAILS_DELIVERED, order_id, about


def _decoded(headers: Message, name: str) -> str:
    """Returns a header, decoded (RFC 2047): an id may be any text."""
    value = str(headers.get(name, ""))
    try:
        return str(make_header(decode_header(value))).strip()
    except (HeaderParseError, LookupError, UnicodeError):  # another sender's
        return value.strip()

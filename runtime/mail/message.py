"""E-mails as they go out (RFC 5322): every header in order, and made of other people's text without obeying it.

Structured headers are written and folded here. Python's `email` package folds them otherwise from one patch release to
the next, and some lose the quotes of a long name with a comma: its parts become recipients. A display name is either
plain atoms or encoded words (RFC 2047), which hold no special characters whatever is done to them on their way. What
comes out is parsed again, in both ways that Python has, and must name the one recipient and no other header.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import HeaderParser
from email.policy import Policy
from email.utils import format_datetime, getaddresses
from typing import Self

from schemas.addresses import mailbox

_LINE, _MOST = 76, 998
"""Characters on a line of a header: as many as are good, and octets as RFC 5322 (2.1.1) allows at most."""

_PATH = 254
"""Octets of an address that SMTP carries (RFC 5321, 4.5.3.1.3)."""

_NAME = 128
"""Characters of a display name that go out. Servers bound headers; a name in a customer record is not bounded."""

_WORD_OCTETS = 45
"""Octets that base64 makes 60 characters of: an encoded word has 75 at most (RFC 2047, 2)."""

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line and paragraph separators, and halves of characters."""
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction of what follows, an address say."""


class Header(str):
    """A header field that is folded already. As text: what it says. Python's package prints it as it is."""

    __slots__ = ("_lines", "addresses", "name")
    name: str
    addresses: tuple[Address, ...]
    _lines: tuple[str, ...]

    def __new__(cls, name: str, *lines: str, says: str | None = None, addresses: tuple[Address, ...] = ()) -> Self:
        """The field.

        Arguments:
            name: of the field.
            lines: the body as it stands in a message; each line but the first begins with a space.
            says: the same decoded, if that differs. Not of addresses: who sends the e-mail reads them from the text.
            addresses: those in it.
        """
        header = super().__new__(cls, "".join(lines) if says is None else says)
        header.name, header.addresses, header._lines = name, addresses, lines
        return header

    def fold(self, *, policy: Policy) -> str:
        """As it stands in a message."""
        return f"{self.name}: {policy.linesep.join(self._lines)}{policy.linesep}"


def compose_email(
    to: Address,
    name: str,
    sender: str,
    subject: str,
    at: datetime,
    message_id: str,
    headers: Mapping[str, str],
    text: str,
    html: str | None = None,
) -> EmailMessage:
    """The e-mail to one recipient.

    Arguments:
        to: the address; its display name is not used.
        name: the recipient's name, any text.
        sender: an address, with or without a name.
        subject: any text.
        at: its date. An e-mail that is sent again has the same. One that no clock of today shows is that of 1970.
        message_id: with its angle brackets; the same for an e-mail that is sent again.
        headers: more of them, by name: any text each.
        text: the body as plain text.
        html: the same as HTML.

    Raises `ValueError` if there is no way to write it to that address alone.
    """
    if _BREAKS.search(subject):
        raise ValueError("the subject has line breaks or control characters")
    who = mailbox(sender)
    message = EmailMessage()
    message["To"] = address_header("To", _carried(to), name)
    message["From"] = address_header("From", _carried(who), who.display_name)
    message["Subject"] = _text("Subject", _readable(subject), _LINE)
    message["Date"] = Header("Date", _date(at))
    message["Message-ID"] = Header("Message-ID", message_id)
    message["Auto-Submitted"] = Header("Auto-Submitted", "auto-generated")  # RFC 3834: no holiday notice is to answer
    for field, said in headers.items():
        message[field] = _text(field, _BREAKS.sub(" ", said).strip(), _MOST)
    message.set_content(_body(text))
    if html is not None:
        message.add_alternative(_body(html), subtype="html")
    if not _is_sound(message, to.addr_spec, who.addr_spec):
        del message["To"]
        message["To"] = address_header("To", to, "")
        if not _is_sound(message, to.addr_spec, who.addr_spec):
            raise ValueError(f"{to.addr_spec!r} is no address that an e-mail can be written to")
    return message


def domain_of(sender: str) -> str:
    """The domain for Message-IDs of a sender's e-mails, in ASCII."""
    domain = mailbox(sender).domain
    try:
        return domain.encode("idna").decode() if not domain.isascii() else domain
    except UnicodeError:
        return "localhost"


def _carried(address: Address) -> Address:
    said = address.addr_spec
    if _BREAKS.search(said) or len(said.encode(errors="replace")) > _PATH:
        raise ValueError(f"{said[:_PATH]!r} is no address: it has control characters, or more than {_PATH} octets")
    return address


def _date(at: datetime) -> str:
    """A date (RFC 5322, 3.3)."""
    sane = 1970 <= at.year < 9999
    return format_datetime(at.astimezone(UTC).replace(microsecond=0) if sane else datetime(1970, 1, 1, tzinfo=UTC))


def address_header(field: str, address: Address, name: str) -> Header:
    """A field with one address, folded so that its name stays a name, whatever it is."""
    name = _readable(name)[:_NAME].strip()
    found, addr_spec = (Address(name, address.username, address.domain),), address.addr_spec
    if not name:
        return Header(field, addr_spec, addresses=found)
    if len(name) > _LINE - len(field) - 2 or not _ATOMS.fullmatch(name) or "=?" in name:
        return Header(field, *_encoded(name), f" <{addr_spec}>", addresses=found)
    whole = f"{name} <{addr_spec}>"
    lines = (whole,) if len(whole) + len(field) + 2 <= _LINE else (name, f" <{addr_spec}>")
    return Header(field, *lines, addresses=found)


def _text(field: str, said: str, most: int) -> Header:
    """An unstructured field."""
    if not said or (_PLAIN.fullmatch(said) and "=?" not in said and len(field) + 2 + len(said) <= most):
        return Header(field, said)
    return Header(field, *_encoded(said), says=said)


def _encoded(said: str) -> list[str]:
    """Encoded words, one a line. No character is cut in two."""
    words, word = [], b""
    for octets in (character.encode() for character in said):
        if len(word) + len(octets) > _WORD_OCTETS:
            words.append(word)
            word = b""
        word += octets
    encoded = [f"=?utf-8?b?{b64encode(octets).decode()}?=" for octets in (*words, word)]
    return [encoded[0], *(f" {further}" for further in encoded[1:])]


def _readable(said: str) -> str:
    """On one line, in one direction."""
    return " ".join(_DIRECTIONS.sub("", _BREAKS.sub(" ", said)).split())


def _body(text: str) -> str:
    """Without what no e-mail may hold: NUL, and halves of characters."""
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _is_sound(message: EmailMessage, to: str, sender: str) -> bool:
    """Whether a reader finds the headers that were written, one recipient and one sender, whichever parser it uses."""
    printer = policy.SMTP if (to + sender).isascii() else policy.SMTPUTF8
    head, _, _ = message.as_bytes(policy=printer).partition(b"\r\n\r\n")
    if any(len(line) > _MOST for line in head.split(b"\r\n")):
        return False
    said = head.decode()
    old, new = HeaderParser(policy=policy.compat32).parsestr(said), HeaderParser(policy=policy.default).parsestr(said)
    try:
        return old.keys() == new.keys() == message.keys() and all(
            [address for _, address in getaddresses([str(message[field])])] == [wanted]  # by which it is sent
            and [address for _, address in getaddresses([str(old[field])])] == [wanted]
            and [address.addr_spec for address in new[field].addresses] == [wanted]
            for field, wanted in (("To", to), ("From", sender))
        )
    except Exception:  # Python's parser stumbles over some addresses, and with what depends on its release
        return False

"""Composes e-mails (RFC 5322) from untrusted text without letting it inject headers or recipients.

Structured headers are folded here, because Python's `email` package folds them differently in each patch release, and
some releases lose the quotes of a long name with a comma, so that its parts become recipients. A display name is
written as plain atoms or as encoded words (RFC 2047), which contain no special characters. The result is parsed again
with both of Python's parsers, and must have the one recipient and no further header.

Relies on the protocol of header objects in `email`: `fold`, `name`, and `addresses` of address headers.
"""

import re
import uuid
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

_LINE, _MAX_LINE = 76, 998
"""Characters of a header line: recommended, and octets at most (RFC 5322, 2.1.1)."""

_MAX_ADDRESS = 254
"""Octets of an address at most (RFC 5321, 4.5.3.1.3)."""

_MAX_NAME = 128
"""Characters of a display name that are sent. Servers limit headers; names in customer records are not limited."""

_WORD_OCTETS = 45
"""Octets of an encoded word before base64, which makes 60 characters of them; a word has 75 at most (RFC 2047, 2)."""

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PLAIN = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Control characters, line and paragraph separators, and lone surrogates."""
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the writing direction, which could disguise an address."""


class Header(str):
    """A header that is already folded; its text is the decoded value. Python's `email` writes it unchanged."""

    __slots__ = ("_lines", "addresses", "name")
    name: str
    addresses: tuple[Address, ...]
    _lines: tuple[str, ...]

    def __new__(cls, name: str, *lines: str, text: str | None = None, addresses: tuple[Address, ...] = ()) -> Self:
        """Makes a header.

        Arguments:
            name: of the header.
            lines: the folded value; each line after the first begins with a space.
            text: the decoded value, if it differs. Not for addresses: the sender reads them from the text.
            addresses: the addresses in the value.
        """
        header = super().__new__(cls, "".join(lines) if text is None else text)
        header.name, header.addresses, header._lines = name, addresses, lines
        return header

    def fold(self, *, policy: Policy) -> str:
        """The header as written to a message."""
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
    """Composes an e-mail to one recipient.

    Arguments:
        to: the address; its display name is not used.
        name: the recipient's name, any text.
        sender: an address, with or without a name.
        subject: any text on one line.
        at: the date, the same in a repetition. A year before 1970 or from 9999 on becomes 1970.
        message_id: with angle brackets, the same in a repetition.
        headers: further headers by name, any text.
        text: the body as plain text.
        html: the body as HTML.

    Raises:
        ValueError: the subject has control characters, or no e-mail can be addressed to `to` alone.
    """
    if _BREAKS.search(subject):
        raise ValueError("the subject has line breaks or control characters")
    from_address = mailbox(sender)
    message = EmailMessage()
    message["To"] = address_header("To", _checked(to), name)
    message["From"] = address_header("From", _checked(from_address), from_address.display_name)
    message["Subject"] = _text_header("Subject", _single_line(subject), _LINE)
    message["Date"] = Header("Date", _date(at))
    message["Message-ID"] = Header("Message-ID", message_id)
    message["Auto-Submitted"] = Header("Auto-Submitted", "auto-generated")  # RFC 3834: prevents automatic replies
    for field, value in headers.items():
        message[field] = _text_header(field, _BREAKS.sub(" ", value).strip(), _MAX_LINE)
    message.set_content(_body(text))
    if html is not None:
        message.add_alternative(_body(html), subtype="html")
    if not _is_unambiguous(message, to.addr_spec, from_address.addr_spec):
        del message["To"]
        message["To"] = address_header("To", to, "")
        if not _is_unambiguous(message, to.addr_spec, from_address.addr_spec):
            raise ValueError(f"no e-mail can be addressed to {to.addr_spec!r}")
    return message


def message_id(namespace: uuid.UUID, name: str, domain: str) -> str:
    """A Message-ID (RFC 5322, 3.6.4): the same for every repetition of an e-mail, by which recipients deduplicate.

    Arguments:
        namespace: of the service's e-mails.
        name: identifies the e-mail among them.
        domain: see `message_id_domain`.
    """
    return f"<{uuid.uuid5(namespace, name)}@{domain}>"


def message_id_domain(sender: str) -> str:
    """The domain for the Message-IDs of a sender's e-mails, in ASCII."""
    domain = mailbox(sender).domain
    try:
        return domain.encode("idna").decode() if not domain.isascii() else domain
    except UnicodeError:
        return "localhost"


def _checked(address: Address) -> Address:
    text = address.addr_spec
    if _BREAKS.search(text) or len(text.encode(errors="replace")) > _MAX_ADDRESS:
        raise ValueError(
            f"{text[:_MAX_ADDRESS]!r} is no address: it has control characters, or more than {_MAX_ADDRESS} octets"
        )
    return address


def _date(at: datetime) -> str:
    """A date (RFC 5322, 3.3)."""
    valid = 1970 <= at.year < 9999
    return format_datetime(at.astimezone(UTC).replace(microsecond=0) if valid else datetime(1970, 1, 1, tzinfo=UTC))


def address_header(field: str, address: Address, name: str) -> Header:
    """A header with one address, folded so that any name stays a display name."""
    name = _single_line(name)[:_MAX_NAME].strip()
    addresses, addr_spec = (Address(name, address.username, address.domain),), address.addr_spec
    if not name:
        return Header(field, addr_spec, addresses=addresses)
    if len(name) > _LINE - len(field) - 2 or not _ATOMS.fullmatch(name) or "=?" in name:
        return Header(field, *_encoded_words(name), f" <{addr_spec}>", addresses=addresses)
    whole = f"{name} <{addr_spec}>"
    lines = (whole,) if len(whole) + len(field) + 2 <= _LINE else (name, f" <{addr_spec}>")
    return Header(field, *lines, addresses=addresses)


def _text_header(field: str, text: str, max_line: int) -> Header:
    """An unstructured header."""
    if not text or (_PLAIN.fullmatch(text) and "=?" not in text and len(field) + 2 + len(text) <= max_line):
        return Header(field, text)
    return Header(field, *_encoded_words(text), text=text)


def _encoded_words(text: str) -> list[str]:
    """Encoded words (RFC 2047), one a line; no character is split."""
    words, word = [], b""
    for octets in (character.encode() for character in text):
        if len(word) + len(octets) > _WORD_OCTETS:
            words.append(word)
            word = b""
        word += octets
    encoded = [f"=?utf-8?b?{b64encode(octets).decode()}?=" for octets in (*words, word)]
    return [encoded[0], *(f" {further}" for further in encoded[1:])]


def _single_line(text: str) -> str:
    """The text on one line, without changes of direction."""
    return " ".join(_DIRECTIONS.sub("", _BREAKS.sub(" ", text)).split())


def _body(text: str) -> str:
    """Replaces characters that are not allowed in an e-mail: NUL and lone surrogates."""
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _is_unambiguous(message: EmailMessage, to: str, sender: str) -> bool:
    """Whether every parser reads the headers that were written, with one recipient and one sender."""
    printer = policy.SMTP if (to + sender).isascii() else policy.SMTPUTF8
    head, _, _ = message.as_bytes(policy=printer).partition(b"\r\n\r\n")
    if any(len(line) > _MAX_LINE for line in head.split(b"\r\n")):
        return False
    text = head.decode()
    old, new = HeaderParser(policy=policy.compat32).parsestr(text), HeaderParser(policy=policy.default).parsestr(text)
    try:
        return old.keys() == new.keys() == message.keys() and all(
            [address for _, address in getaddresses([str(message[field])])] == [expected]  # as the SMTP client reads it
            and [address for _, address in getaddresses([str(old[field])])] == [expected]
            and [address.addr_spec for address in new[field].addresses] == [expected]
            for field, expected in (("To", to), ("From", sender))
        )
    except Exception:  # Python's parser fails on some addresses, with errors that depend on its release
        return False

"""Parses e-mail addresses (RFC 5322, 3.4) with the parser of the standard library.

That parser fails on malformed input with errors that depend on the Python release. Here each of them is a `ValueError`
with one text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from email.errors import InvalidHeaderDefect, MessageError
from email.headerregistry import Address
from email.message import EmailMessage


def address(email: str, name: str = "") -> Address:
    """Parses the bare address `email`; `name` becomes its display name.

    Raises `ValueError` if `email` is malformed or `name` contains a line break.
    """
    with _as_value_error(email):
        return Address(name, addr_spec=email)


def mailbox(text: str) -> Address:
    """Parses an address with optional display name: `Orders <orders@example.com>`. Raises `ValueError`."""
    message = EmailMessage()
    with _as_value_error(text):
        message["From"] = text
        [found] = message["From"].addresses
        for defect in message["From"].defects:  # newer releases record what older ones raise
            if isinstance(defect, InvalidHeaderDefect):
                raise defect
    return address(found.addr_spec, found.display_name)


@contextmanager
def _as_value_error(text: str) -> Iterator[None]:
    try:
        yield
    except (MessageError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{text!r} is not an e-mail address") from error

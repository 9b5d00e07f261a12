"""Addresses that letters go to and come from (RFC 5322, 3.4).

Python's own parser is asked. On some of what is no address it stumbles, and with what depends on its release.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from email.errors import InvalidHeaderDefect, MessageError
from email.headerregistry import Address
from email.message import EmailMessage


def address(email: str, name: str = "") -> Address:
    """The address, as a letter to somebody of this name has it.

    Raises `ValueError` if it is none, or the name holds a line break.
    """
    with _stumbling(email):
        return Address(name, addr_spec=email)


def mailbox(said: str) -> Address:
    """The one address of a text that may name whose it is: `Orders <orders@example.com>`. Raises `ValueError`."""
    message = EmailMessage()
    with _stumbling(said):
        message["From"] = said
        [found] = message["From"].addresses
        for defect in message["From"].defects:  # newer releases note some that older ones stumble on
            if isinstance(defect, InvalidHeaderDefect):
                raise defect
    return address(found.addr_spec, found.display_name)


@contextmanager
def _stumbling(said: str) -> Iterator[None]:
    try:
        yield
    except (MessageError, IndexError, AttributeError) as error:
        raise ValueError(f"{said!r} is no address") from error

"""From whom to whom an e-mail goes, and its content as a server can take it (RFC 5321, 6152, 6531)."""

from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage

import idna

from runtime.errors import SideEffectRejected
from runtime.mail.message import address_header

_ADDRESSES = ("From", "Sender", "Reply-To", "To", "Cc")


def domain_of(address: str) -> str:
    """The domain an address belongs to, as it is compared. Of what is no address: all of it."""
    return address.rpartition("@")[2].strip(" >").rstrip(".").lower()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A letter with its sender and its one recipient. Domains are in ASCII, which every server understands."""

    sender: str
    recipient: str
    message: EmailMessage

    @classmethod
    def of(cls, message: EmailMessage) -> "Envelope":
        """Raises `SideEffectRejected` if it has not one sender and one recipient, or a domain that cannot be one."""
        for name in _ADDRESSES:
            if any(not address.domain.isascii() for address in _addresses(message, name)):
                _put_into_ascii(message, name)
        identity = str(message["Message-ID"] or "")
        if not identity.isascii():  # its domain is the sender's
            del message["Message-ID"]
            message["Message-ID"] = f"{identity.rpartition('@')[0]}@{_domain(identity.rpartition('@')[2].rstrip('>'))}>"
        senders, recipients = _addresses(message, "From"), [*_addresses(message, "To"), *_addresses(message, "Cc")]
        if len(senders) != 1 or len(recipients) != 1:
            told = f"{len(senders)} senders and {len(recipients)} recipients"
            raise SideEffectRejected(f"a letter has one of each, this one {told}", "not one recipient")
        return cls(senders[0].addr_spec, recipients[0].addr_spec, message)

    @property
    def needs_utf8(self) -> bool:
        """Whether there is something beyond ASCII before the @ of an address."""
        return not (self.sender + self.recipient).isascii()

    def content(self, *, utf8: bool, eight_bit: bool) -> bytes:
        """The letter as bytes, in lines that end in CRLF.

        Arguments:
            utf8: headers may hold UTF-8.
            eight_bit: the body may hold bytes beyond ASCII.
        """
        return self.message.as_bytes(policy=policy.SMTP.clone(utf8=utf8, cte_type="8bit" if eight_bit else "7bit"))


def _addresses(message: EmailMessage, name: str) -> tuple[Address, ...]:
    return tuple(address for header in message.get_all(name, ()) for address in header.addresses)


def _put_into_ascii(message: EmailMessage, name: str) -> None:
    """Replaces the domains of a field. Python's package must not fold a name that somebody else chose."""
    found = tuple(Address(a.display_name, a.username, _domain(a.domain)) for a in _addresses(message, name))
    if len(found) == 1:
        message.replace_header(name, address_header(name, found[0], found[0].display_name))
    else:
        del message[name]
        message[name] = found


def _domain(domain: str) -> str:
    """RFC 5891: `bücher.example` is `xn--bcher-kva.example`."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise SideEffectRejected(f"no letter can go to the domain {domain}: {error}", "no such domain") from None

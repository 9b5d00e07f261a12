"""Sender, recipient and content of an e-mail in the form that an SMTP server accepts (RFC 5321, 6152, 6531)."""

from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage

import idna

from runtime.errors import SideEffectRejected
from runtime.mail.message import address_header

_ADDRESSES = ("From", "Sender", "Reply-To", "To", "Cc")


def domain_of(address: str) -> str:
    """The domain of an address in lower case; the whole text if it is no address."""
    return address.rpartition("@")[2].strip(" >").rstrip(".").lower()


@dataclass(frozen=True, slots=True)
class Envelope:
    """An e-mail with its sender and its one recipient. Domains are in ASCII (punycode), which every server accepts."""

    sender: str
    recipient: str
    message: EmailMessage

    @classmethod
    def of(cls, message: EmailMessage) -> "Envelope":
        """Raises `SideEffectRejected` without exactly one sender and one recipient, or with an invalid domain."""
        for name in _ADDRESSES:
            if any(not address.domain.isascii() for address in _addresses(message, name)):
                _encode_domains(message, name)
        message_id = str(message["Message-ID"] or "")
        if not message_id.isascii():  # its domain is the sender's
            left, _, domain = message_id.rpartition("@")
            del message["Message-ID"]
            message["Message-ID"] = f"{left}@{_ascii_domain(domain.rstrip('>'))}>"
        senders, recipients = _addresses(message, "From"), [*_addresses(message, "To"), *_addresses(message, "Cc")]
        if len(senders) != 1 or len(recipients) != 1:
            counts = f"{len(senders)} senders and {len(recipients)} recipients"
            raise SideEffectRejected(f"an e-mail needs one sender and one recipient, not {counts}", "not one recipient")
        return cls(senders[0].addr_spec, recipients[0].addr_spec, message)

    @property
    def needs_utf8(self) -> bool:
        """Whether an address has characters beyond ASCII before the @."""
        return not (self.sender + self.recipient).isascii()

    def content(self, *, utf8: bool, eight_bit: bool) -> bytes:
        """The e-mail as bytes, in lines that end in CRLF.

        Arguments:
            utf8: whether headers may contain UTF-8.
            eight_bit: whether the body may contain bytes beyond ASCII.
        """
        return self.message.as_bytes(policy=policy.SMTP.clone(utf8=utf8, cte_type="8bit" if eight_bit else "7bit"))


def _addresses(message: EmailMessage, name: str) -> tuple[Address, ...]:
    return tuple(address for header in message.get_all(name, ()) for address in header.addresses)


def _encode_domains(message: EmailMessage, name: str) -> None:
    """Converts the domains in a header to ASCII. Folds the header itself: Python's `email` may break display names."""
    addresses = tuple(Address(a.display_name, a.username, _ascii_domain(a.domain)) for a in _addresses(message, name))
    if len(addresses) == 1:
        message.replace_header(name, address_header(name, addresses[0], addresses[0].display_name))
    else:
        del message[name]
        message[name] = addresses


def _ascii_domain(domain: str) -> str:
    """The domain in ASCII (RFC 5891): `bücher.example` is `xn--bcher-kva.example`."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise SideEffectRejected(f"the domain {domain} is not valid: {error}", "no such domain") from None

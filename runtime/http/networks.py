"""Which addresses requests to others may go to: public ones, and networks that a setting allows.

The rules are those of the IANA registries of special-purpose addresses, written out: `ipaddress.is_global` differs
between Python releases, and knows no addresses of cloud providers.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

Address = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; metadata of Alibaba Cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # platform of Azure, reachable from each of its machines
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure, Google Cloud and others
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
"""All global unicast addresses. Outside are loopback, link-local, unique local, multicast and translated ones."""
_SPECIAL_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them, which contains IPv4 addresses
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which contains IPv4 addresses
        "3fff::/20",  # documentation
    )
)


def _parse(value: object) -> IpNetwork:
    try:
        return ip_network(str(value).strip())
    except ValueError as error:
        raise ValueError(f"{error}: write a network such as 10.1.0.0/16 or fd00::/8") from None


Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(_parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string"}),
]
"""A network in CIDR form."""


def parse_address(text: str) -> Address | None:
    """An address in its canonical text form, without zone; an IPv4-mapped one as IPv4. `None` for any other text.

    >>> parse_address("::ffff:127.0.0.1")
    IPv4Address('127.0.0.1')
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class AddressPolicy:
    """Which addresses may be connected to.

    Arguments:
        allowed: networks that are always permitted.
        public: whether public addresses are permitted as well.

    >>> AddressPolicy([ip_network("10.1.0.0/16")]).permits("10.1.2.3")
    True
    >>> AddressPolicy().permits("::ffff:169.254.169.254")
    False
    """

    def __init__(self, allowed: Iterable[IpNetwork] = (), *, public: bool = True) -> None:
        self._allowed = tuple(allowed)
        self._public = public

    def permits(self, text: str) -> bool:
        """Whether an address, in the form in which a socket has it, may be connected to."""
        address = parse_address(text)
        if address is None:
            return False
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        return self._public and _is_public(address)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)

"""Which members of a group the others cannot reach under the URL that they advertise: a pure function.

Requests go to the owner of their key by its URL. Two members of one URL, or a member whose URL means another machine to
each of the others, make most requests fail for ever; so such a member is given nothing, and told why.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

_REMEDY = "set ADVERTISED_URL to one under which the other workers reach this one, and no other"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a member says of itself when it joins.

    Arguments:
        url: that it advertises.
        instance: of its process, random; empty for a member of an earlier version, which says nothing of itself and
            cannot be told anything.
        since: when it started, seconds since 1970 by its own clock.
        network: see `network_identity`.
        accepted: whether the group has accepted it before.
    """

    url: str
    instance: str
    since: float
    network: str
    accepted: bool


def network_identity() -> str:
    """Names the network stack of this process: whoever has the same one means the same by 127.0.0.1.

    On Linux that is a kernel, by its boot, and a network namespace: two containers of one machine differ.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}/{os.name}"


def refusals(claims: Mapping[str, Claim]) -> dict[str, str]:
    """The members that are to be given nothing, each with the reason. Never all of them.

    Who was accepted before stays so before others, then who started first: a rebalance changes nothing by itself.
    """
    unreachable = _unreachable(claims)
    rest = {member: claim for member, claim in claims.items() if member not in unreachable}
    return unreachable | _doubled(rest)


def _unreachable(claims: Mapping[str, Claim]) -> dict[str, str]:
    """Those whose URL means nothing on another host, in a group of several hosts."""
    local = {member: claim for member, claim in claims.items() if claim.instance and _is_local(claim.url)}
    if len({claim.network for claim in claims.values() if claim.instance}) < 2 or not local:
        return {}
    kept = None
    if len(local) == len(claims):  # among themselves those of one host reach each other
        kept = min(local.values(), key=_rank).network
    return {
        member: f"workers of this group on other hosts cannot reach {claim.url}: {_REMEDY}"
        for member, claim in local.items()
        if claim.network != kept
    }


def _doubled(claims: Mapping[str, Claim]) -> dict[str, str]:
    """All but one of those that advertise one URL."""
    result = {}
    first: dict[tuple[str, str | None, int | None], Claim] = {}
    for member, claim in sorted(claims.items(), key=lambda item: _rank(item[1])):
        url = URL(claim.url)
        known = first.setdefault((url.scheme, url.host, url.port), claim)
        if claim.instance not in {known.instance, ""}:
            result[member] = f"another worker of this group advertises {claim.url}, too: {_REMEDY}"
    return result


def _rank(claim: Claim) -> tuple[bool, bool, float, str]:
    return bool(claim.instance), not claim.accepted, claim.since, claim.instance


def _is_local(url: str) -> bool:
    """Whether a URL leads each host to itself: a loopback address, or one that stands for all addresses."""
    host = (URL(url).host or "").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in {"", "localhost", "localhost.localdomain"} or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified

"""Finds the members of a group whose advertised URL does not lead the other members to them. Pure.

Requests are forwarded to a key's owner by its URL. Two members with one URL, or a member whose URL is another machine
on each host, would make most requests fail for ever. The group assigns nothing to such a member, and tells it why.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

_REMEDY = "set ADVERTISED_URL to a URL under which the other workers reach this worker and no other"


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """What a member reports about itself when it joins.

    Arguments:
        url: its advertised URL.
        instance: random id of its process; empty for a member of an earlier version, which reports nothing else and
            cannot be refused.
        since: its start, seconds since 1970 on its own clock.
        network: see `network_identity`.
        accepted: whether the group has accepted it before.
    """

    url: str
    instance: str
    since: float
    network: str
    accepted: bool


def network_identity() -> str:
    """Identifies the network stack of this process: within one, 127.0.0.1 is the same for all processes.

    On Linux it consists of the kernel's boot id and the network namespace, so two containers of one machine differ.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/net').stat().st_ino}"
    except OSError:
        return f"{socket.gethostname()}/{os.name}"


def refused_members(members: Mapping[str, MemberInfo]) -> dict[str, str]:
    """The members to refuse, with the reason of each. Never all of them.

    Of members in conflict, one that was accepted before stays, then the one that started first: a rebalance without
    changes refuses the same members.
    """
    unreachable = _unreachable(members)
    reachable = {member_id: info for member_id, info in members.items() if member_id not in unreachable}
    return unreachable | _duplicates(reachable)


def _unreachable(members: Mapping[str, MemberInfo]) -> dict[str, str]:
    """In a group of several hosts, the members whose URL is local to each host."""
    local = {member_id: info for member_id, info in members.items() if info.instance and _is_local(info.url)}
    if len({info.network for info in members.values() if info.instance}) < 2 or not local:
        return {}
    kept = None
    if len(local) == len(members):  # no member is reachable from elsewhere: those of one host keep each other
        kept = min(local.values(), key=_rank).network
    return {
        member_id: f"workers of this group on other hosts cannot reach {info.url}: {_REMEDY}"
        for member_id, info in local.items()
        if info.network != kept
    }


def _duplicates(members: Mapping[str, MemberInfo]) -> dict[str, str]:
    """Of the members that advertise one URL, all but the first in rank."""
    result = {}
    first: dict[tuple[str, str | None, int | None], MemberInfo] = {}
    for member_id, info in sorted(members.items(), key=lambda item: _rank(item[1])):
        url = URL(info.url)
        known = first.setdefault((url.scheme, url.host, url.port), info)
        if info.instance not in {known.instance, ""}:
            result[member_id] = f"another worker of this group advertises {info.url}, too: {_REMEDY}"
    return result


def _rank(info: MemberInfo) -> tuple[bool, bool, float, str]:
    return bool(info.instance), not info.accepted, info.since, info.instance


def _is_local(url: str) -> bool:
    """Whether a URL is each host itself: a loopback address, or a wildcard address."""
    host = (URL(url).host or "").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host in {"", "localhost", "localhost.localdomain"} or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified

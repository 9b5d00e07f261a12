"""Which member of a group owns which partitions, and which keep copies of them: a pure function.

Kept in this order: the loads are even; who has a partition keeps it; what has to move goes to whoever has a copy; the
copies of what one owns are spread over the others, so that each has room for its part; they stay where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_MOST_ROUNDS = 8
"""One is enough for nearly every group, two for all that were ever seen."""


@dataclass(slots=True)
class Share:
    """Partitions of one member: those it owns, and those it is standby of."""

    owned: set[int] = field(default_factory=set)
    standby: set[int] = field(default_factory=set)


def place(members: Mapping[str, Share], partitions: int, replicas: int) -> dict[str, Share]:
    """The new shares of all members, who say what they have now.

    Arguments:
        members: by member id. Two may say that they own the same partition: one of them has been away.
        partitions: how many there are, numbered from 0.
        replicas: how many members besides its owner keep a copy of a partition, if there are so many.
    """
    shares = _place(members, partitions, replicas)
    for _ in range(_MOST_ROUNDS):
        # Who owns what has changed by it, so copies may have a better place: else the next rebalance would move them.
        if (again := _place(shares, partitions, replicas)) == shares:
            break
        shares = again
    return shares


def _place(members: Mapping[str, Share], partitions: int, replicas: int) -> dict[str, Share]:
    shares = _place_owners(members, partitions)
    _place_standbys(members, shares, partitions, min(replicas, len(shares) - 1))
    return shares


def _place_owners(members: Mapping[str, Share], partitions: int) -> dict[str, Share]:
    names = sorted(members)
    least, larger = divmod(partitions, len(names))
    shares = {name: Share() for name in names}

    def room(name: str) -> bool:
        owned = len(shares[name].owned)
        return owned < least or (owned == least and sum(len(s.owned) > least for s in shares.values()) < larger)

    def had(name: str, partition: int) -> bool:
        return partition in members[name].owned or partition in members[name].standby

    moving = set(range(partitions))
    for name in sorted(names, key=lambda name: (-len(members[name].owned), name)):
        # What others have a copy of is let go of first.
        for partition in sorted(members[name].owned, key=lambda p: sum(had(other, p) for other in names)):
            if partition in moving and room(name):
                shares[name].owned.add(partition)
                moving.remove(partition)
    while moving:
        # The partition with the least choice of where to go is next.
        able = [name for name in names if room(name)]
        warm = {p: [name for name in able if had(name, p)] for p in moving}
        partition = min(moving, key=lambda p: (len(warm[p]) or len(names), p))
        to = min(warm[partition] or able, key=lambda name: (len(shares[name].owned), name))
        shares[to].owned.add(partition)
        moving.remove(partition)
    return shares


def _place_standbys(members: Mapping[str, Share], shares: dict[str, Share], partitions: int, replicas: int) -> None:
    owners = {partition: name for name, share in shares.items() for partition in share.owned}

    def rank(name: str, partition: int, least: int) -> tuple[bool, bool, bool, int, int, str]:
        share, siblings = shares[name], shares[owners[partition]].owned
        copies = len(share.standby & siblings)
        crowded = copies >= -(-len(siblings) * replicas // (len(shares) - 1)) or len(share.owned) > least
        return (
            crowded,  # it would have no room for all that the owner leaves
            partition not in members[name].owned,  # who owned it until now has all of it
            partition not in members[name].standby,
            copies,
            len(share.standby),
            name,
        )

    for partition in range(partitions):
        for _ in range(replicas):
            able = [n for n in shares if partition not in shares[n].owned and partition not in shares[n].standby]
            least = min(len(shares[name].owned) for name in able)
            shares[min(rank(name, partition, least) for name in able)[-1]].standby.add(partition)

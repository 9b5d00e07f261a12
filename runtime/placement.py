"""Which member of a group owns which partitions, and which keep copies of them: a pure function.

Kept in this order: the loads are even; who has a partition keeps it; what has to move goes to whoever has a copy; the
copies are spread evenly, and stay where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
    # Those that few have come first: they have less choice of where to go.
    for partition in sorted(
        moving, key=lambda p: (sum(had(name, p) and room(name) for name in names) or len(names), p)
    ):
        able = [name for name in names if room(name)]
        to = min(able, key=lambda name: (not had(name, partition), len(shares[name].owned), name))
        shares[to].owned.add(partition)
    _place_standbys(members, shares, partitions, min(replicas, len(names) - 1))
    return shares


def _place_standbys(members: Mapping[str, Share], shares: dict[str, Share], partitions: int, replicas: int) -> None:
    most = -(-partitions * replicas // len(shares))
    lacking = dict.fromkeys(range(partitions), replicas)

    def add(partition: int, name: str) -> None:
        shares[name].standby.add(partition)
        lacking[partition] -= 1

    def may(partition: int, name: str) -> bool:
        return partition not in shares[name].owned and partition not in shares[name].standby

    for partition in range(partitions):
        # Who owned it until now has all of it; who was standby, nearly all.
        before = [n for n in shares if partition in members[n].owned or partition in members[n].standby]
        for name in sorted(before, key=lambda n: partition not in members[n].owned):
            if lacking[partition] and may(partition, name) and len(shares[name].standby) < most:
                add(partition, name)
    for partition in range(partitions):
        while lacking[partition]:
            able = [name for name in shares if may(partition, name)]
            add(partition, min(able, key=lambda name: (len(shares[name].standby), name)))

"""Places a group's partitions and their standby replicas on its members. Pure.

Goals, most important first: every member owns equally many partitions; an owner keeps its partitions; a partition that
moves goes to a standby; the standbys of one owner's partitions are spread over the others, so that each has capacity
for its part if the owner fails; standbys stay where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_MAX_ROUNDS = 8
"""Rounds until a placement is stable: one for nearly every group, two for all that were ever observed."""


@dataclass(slots=True)
class MemberPlacement:
    """The partitions that one member owns, and those of which it has a standby replica."""

    owned: set[int] = field(default_factory=set)
    standby: set[int] = field(default_factory=set)


def place(members: Mapping[str, MemberPlacement], partitions: int, replicas: int) -> dict[str, MemberPlacement]:
    """Returns the new placement of all members.

    Arguments:
        members: the current placement by member id. Two members may claim one partition: one of them was disconnected.
        partitions: number of partitions, numbered from 0.
        replicas: standby replicas of each partition, if there are enough members.
    """
    placed = _place(members, partitions, replicas)
    for _ in range(_MAX_ROUNDS):
        # New owners may make better places for standbys. Without another round, the next rebalance would move them.
        if (improved := _place(placed, partitions, replicas)) == placed:
            break
        placed = improved
    return placed


def _place(members: Mapping[str, MemberPlacement], partitions: int, replicas: int) -> dict[str, MemberPlacement]:
    placed = _place_owners(members, partitions)
    _place_standbys(members, placed, partitions, min(replicas, len(placed) - 1))
    return placed


def _place_owners(members: Mapping[str, MemberPlacement], partitions: int) -> dict[str, MemberPlacement]:
    names = sorted(members)
    minimum, with_one_more = divmod(partitions, len(names))
    placed = {name: MemberPlacement() for name in names}

    def has_capacity(name: str) -> bool:
        owned = len(placed[name].owned)
        larger = sum(len(member.owned) > minimum for member in placed.values())
        return owned < minimum or (owned == minimum and larger < with_one_more)

    def has_state(name: str, partition: int) -> bool:
        return partition in members[name].owned or partition in members[name].standby

    unplaced = set(range(partitions))
    for name in sorted(names, key=lambda name: (-len(members[name].owned), name)):
        # A member that has too many keeps those without a standby, and releases the others.
        for partition in sorted(members[name].owned, key=lambda p: sum(has_state(other, p) for other in names)):
            if partition in unplaced and has_capacity(name):
                placed[name].owned.add(partition)
                unplaced.remove(partition)
    while unplaced:
        # The partition with the fewest candidates comes first.
        candidates = [name for name in names if has_capacity(name)]
        warm = {p: [name for name in candidates if has_state(name, p)] for p in unplaced}
        partition = min(unplaced, key=lambda p: (len(warm[p]) or len(names), p))
        to = min(warm[partition] or candidates, key=lambda name: (len(placed[name].owned), name))
        placed[to].owned.add(partition)
        unplaced.remove(partition)
    return placed


def _place_standbys(
    members: Mapping[str, MemberPlacement], placed: dict[str, MemberPlacement], partitions: int, replicas: int
) -> None:
    owners = {partition: name for name, member in placed.items() for partition in member.owned}

    def rank(name: str, partition: int, fewest: int) -> tuple[bool, bool, bool, int, int, str]:
        member, owned_together = placed[name], placed[owners[partition]].owned
        replicas_here = len(member.standby & owned_together)
        even_part = -(-len(owned_together) * replicas // (len(placed) - 1))
        return (
            replicas_here >= even_part or len(member.owned) > fewest,  # no capacity to succeed the owner
            partition not in members[name].owned,  # the previous owner has the whole state
            partition not in members[name].standby,
            replicas_here,
            len(member.standby),
            name,
        )

    for partition in range(partitions):
        for _ in range(replicas):
            candidates = [n for n in placed if partition not in placed[n].owned and partition not in placed[n].standby]
            fewest = min(len(placed[name].owned) for name in candidates)
            placed[min(rank(name, partition, fewest) for name in candidates)[-1]].standby.add(partition)

"""Placement is even, sticky and warm: each property for any group, and over any history of joins and leaves."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.group.placement import MemberPlacement, place

NAMES = st.sampled_from("abcdefg")


def shares(draw_partitions):
    numbers = st.sets(st.integers(0, draw_partitions - 1))
    return st.dictionaries(NAMES, st.builds(MemberPlacement, numbers, numbers), min_size=1)


@st.composite
def groups(draw):
    """A group whose members report any placement, also a contradictory one."""
    partitions = draw(st.integers(1, 12))
    return draw(shares(partitions)), partitions, draw(st.integers(0, 3))


@given(groups())
def test_every_partition_has_one_owner_and_standbys_elsewhere_and_loads_are_even(group):
    members, partitions, replicas = group
    placed = place(members, partitions, replicas)

    assert placed.keys() == members.keys()
    assert sorted(p for s in placed.values() for p in s.owned) == list(range(partitions))
    wanted = min(replicas, len(members) - 1)
    assert sorted(p for s in placed.values() for p in s.standby) == sorted([*range(partitions)] * wanted)
    assert all(not s.owned & s.standby for s in placed.values())
    loads = [len(s.owned) for s in placed.values()]
    assert max(loads) - min(loads) <= 1


@given(groups())
@example(
    (
        {
            "a": MemberPlacement(),
            "b": MemberPlacement(set(), {0, 1, 2, 3}),
            "c": MemberPlacement(set(range(8))),
            "d": MemberPlacement({0}, {3, 4}),
        },
        11,
        2,
    )
)
def test_a_placement_is_stable(group):
    members, partitions, replicas = group
    placed = place(members, partitions, replicas)

    assert place(placed, partitions, replicas) == placed


@given(groups(), NAMES)
def test_a_leaving_member_is_succeeded_by_its_standbys_and_nothing_else_moves(group, leaver):
    members, partitions, _ = group
    members = {**members, leaver: members.get(leaver, MemberPlacement())}
    if len(members) == 1:
        return
    before = place(members, partitions, len(members) - 1)  # everybody has a copy of everything
    left = {name: share for name, share in before.items() if name != leaver}
    after = place(left, partitions, 1)

    for name, share in left.items():
        assert share.owned <= after[name].owned


@given(groups(), NAMES)
def test_a_joining_member_gets_its_part_only_and_previous_owners_stay_standbys(group, comer):
    members, partitions, _ = group
    members.pop(comer, None)
    if not members:
        return
    before = place(members, partitions, 1)
    after = place({**before, comer: MemberPlacement()}, partitions, 1)

    moved = {p for name in before for p in before[name].owned - after[name].owned}
    assert moved == after[comer].owned
    for partition in moved:
        assert any(partition in after[name].standby for name, share in before.items())


def test_the_previous_owner_becomes_the_standby_because_it_has_the_whole_state():
    two = place({"a": MemberPlacement(), "b": MemberPlacement()}, 6, 1)
    three = place({**two, "c": MemberPlacement()}, 6, 1)

    for name, share in two.items():
        assert share.owned - three[name].owned <= three[name].standby


def test_one_of_two_members_fails_and_returns():
    two = place({"a": MemberPlacement(), "b": MemberPlacement()}, 4, 1)
    assert [(len(s.owned), s.owned | s.standby) for s in two.values()] == [(2, {0, 1, 2, 3})] * 2

    one = place({"b": two["b"]}, 4, 1)
    assert (one["b"].owned, one["b"].standby) == ({0, 1, 2, 3}, set())

    again = place({**one, "a": MemberPlacement(standby=two["a"].owned)}, 4, 1)  # which is what its disk holds
    assert again == two


@pytest.mark.parametrize("partitions", [3, 4, 6, 8, 12])
@pytest.mark.parametrize("count", [3, 4])
def test_in_a_group_that_grew_the_partitions_of_any_leaving_member_go_to_standbys(partitions, count):
    group: dict[str, MemberPlacement] = {}
    for name in "abcd"[:count]:
        group = place({**group, name: MemberPlacement()}, partitions, 1)
    for gone in group:
        rest = {name: share for name, share in group.items() if name != gone}
        after = place(rest, partitions, 1)
        cold = {p for name in rest for p in after[name].owned - rest[name].owned - rest[name].standby}
        assert cold == set(), (gone, group, after)

"""The assignment that a group's leader sends to the members, in Faust's protocol."""

from types import SimpleNamespace

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor
from yarl import URL

from runtime.faust_adapter.assignor import Assignor

TOPICS = {"t-orders", "t-validations"}
CLUSTER = SimpleNamespace(partitions_for_topic=lambda _: {0, 1, 2, 3}, topics=lambda: TOPICS)


def assignor(name, replicas=1):
    nothing = SimpleNamespace(data={}, changelog_topics=set())
    sensors = SimpleNamespace(on_assignment_start=lambda _: None, on_assignment_completed=lambda *_: None)
    conf = SimpleNamespace(canonical_url=URL(f"http://{name}"))
    return Assignor(SimpleNamespace(tables=nothing, conf=conf, tracer=None, sensors=sensors), replicas=replicas)


def rebalance(members, topics=TOPICS, cluster=CLUSTER):
    """One generation: all members report, the first one places, and all get their assignment."""
    topics = topics if isinstance(topics, dict) else dict.fromkeys(members, topics)
    joined = {
        name: ConsumerProtocolMemberMetadata.decode(members[name].metadata(topics[name]).encode()) for name in members
    }
    leader = next(iter(members.values()))
    told = leader.assign(cluster, joined)
    for name, assignment in told.items():
        members[name].on_assignment(assignment)
    return {name: {topic: sorted(numbers) for topic, numbers in told[name].assignment} for name in members}


def test_every_member_learns_all_owners_and_standbys():
    members = {name: assignor(name) for name in "ab"}
    given = rebalance(members)

    assert [set(g) for g in given.values()] == [TOPICS] * 2, "all topics, partitions of one number together"
    assert sorted(p for g in given.values() for p in g["t-orders"]) == [0, 1, 2, 3]
    for member in members.values():
        assert member.owners() == {p: URL(f"http://{n}") for n, g in given.items() for p in g["t-orders"]}
        other = {URL("http://a"): URL("http://b"), URL("http://b"): URL("http://a")}
        assert member.standbys() == {p: [other[url]] for p, url in member.owners().items()}
    for name, member in members.items():
        assert {tp.partition for tp in member.assigned_standbys()} == {0, 1, 2, 3} - set(given[name]["t-orders"])
        assert all("t-orders" in topics for topics in member.external_topics_metadata().values())


def test_owned_partitions_stay_and_a_standby_is_promoted():
    members = {name: assignor(name) for name in "abc"}
    before = rebalance(members)
    copies = {name: {tp.partition for tp in m.assigned_standbys()} for name, m in members.items()}
    gone = members.pop("b")
    assert gone is not None
    after = rebalance(members)

    for name in members:
        taken = set(after[name]["t-orders"]) - set(before[name]["t-orders"])
        assert taken <= copies[name]


def test_a_starting_worker_is_assigned_the_state_on_its_disk():
    members = {name: assignor(name) for name in "ab"}
    members["b"].report_stores(TOPICS, {1, 3})
    given = rebalance(members)

    assert given["b"]["t-orders"] == [1, 3]


def test_a_single_worker_has_no_standbys():
    members = {"a": assignor("a")}
    assert rebalance(members) == {"a": {topic: [0, 1, 2, 3] for topic in TOPICS}}
    assert members["a"].standbys() == {}


@pytest.mark.parametrize("replicas", [0, 1])
def test_a_member_with_more_topics_reads_them_where_it_owns_the_partition(replicas):
    """The other partitions of a new service wait until their owner has been restarted with it."""
    members = {name: assignor(name, replicas) for name in "ab"}
    given = rebalance(members, {"a": TOPICS, "b": {"t-orders"}})

    assert given == {"a": {"t-orders": [0, 2], "t-validations": [0, 2]}, "b": {"t-orders": [1, 3]}}
    assert rebalance({"a": members["a"]})["a"] == {topic: [0, 1, 2, 3] for topic in TOPICS}


@pytest.mark.parametrize("subscription", [TOPICS, {"a": TOPICS, "b": {"t-orders"}}], ids=["alike", "in an upgrade"])
def test_owners_of_a_topic_that_grew_stay_and_its_new_partitions_are_read(subscription):
    raised = {"t-orders": set(range(10)), "t-validations": {0, 1, 2, 3}}
    members = {name: assignor(name) for name in "ab"}
    for member in members.values():
        member.topic_partitions = 4
    before = rebalance(members, subscription)
    cluster = SimpleNamespace(partitions_for_topic=raised.get, topics=lambda: TOPICS)
    given = rebalance(members, subscription, cluster)

    for name, topics in given.items():
        assert [p for p in topics.get("t-orders", ()) if p < 4] == before[name].get("t-orders", [])
        assert topics.get("t-validations", []) == before[name].get("t-validations", [])
    read = sorted(p for topics in given.values() for p in topics["t-orders"])
    if subscription is TOPICS:
        assert read == list(range(10))
        assert all(p % 4 in topics["t-orders"] for topics in given.values() for p in topics["t-orders"])
        assert set(members["a"].owners()) == {0, 1, 2, 3}
    assert rebalance(members, subscription, cluster) == given


class Earlier(Assignor):
    """A member of an earlier version: it reports nothing about itself and cannot be refused."""

    _metadata = PartitionAssignor._metadata
    on_assignment = PartitionAssignor.on_assignment
    _get_client_metadata = PartitionAssignor._get_client_metadata

    def _perform_assignment(self, cluster, member_metadata):
        clients = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        self._update_member_urls(clients)
        partitions = dict(zip(clients, ([0, 1], [2, 3]), strict=True))
        given = {
            m: ClientAssignment(actives=dict.fromkeys(TOPICS, p), standbys={t: [] for t in TOPICS})
            for m, p in partitions.items()
        }
        told = {self._member_urls[m]: dict.fromkeys(TOPICS, p) for m, p in partitions.items()}
        return self._protocol_assignments(given, {}, told, dict.fromkeys(TOPICS, 0))


def partitions_of(given):
    return {name: topics["t-orders"] for name, topics in given.items()}


def test_the_second_member_of_one_url_is_refused_with_a_reason_until_the_first_has_left():
    members = {name: assignor("same") for name in "ab"}
    members["b"]._since += 1
    for _ in range(3):  # no rebalance changes it
        assert partitions_of(rebalance(members)) == {"a": [0, 1, 2, 3], "b": []}
        assert (members["a"].refused, "http://same, too: set ADVERTISED_URL" in members["b"].refused) == ("", True)
        assert members["b"].owners() == dict.fromkeys(range(4), URL("http://same"))
        assert members["b"].assigned_standbys() == set()
        members = dict(reversed(members.items()))  # whoever leads
    members["c"] = assignor("other")
    given = partitions_of(rebalance(members))
    assert (len(given["a"]), given["b"], len(given["c"])) == (2, [], 2)
    del members["a"]
    rebalance(members)
    assert members["b"].refused == ""
    assert {len(p) for p in partitions_of(rebalance(members)).values()} == {2}


def test_the_accepted_member_keeps_its_url_though_another_one_started_before():
    members = {"a": assignor("same")}
    rebalance(members)
    members["b"] = assignor("same")
    members["b"]._since = members["a"]._since - 3600
    assert partitions_of(rebalance(members)) == {"a": [0, 1, 2, 3], "b": []}


def test_a_url_that_is_local_to_each_host_is_refused_in_a_group_of_several_hosts():
    members = {"a": assignor("127.0.0.1:1"), "b": assignor("0.0.0.0:2")}
    rebalance(members)
    assert [m.refused for m in members.values()] == ["", ""], "on one host they reach each other"
    members["c"] = assignor("0.0.0.0:3")
    members["c"].network = "another host"
    given = partitions_of(rebalance(members))
    assert (len(given["a"]), len(given["b"]), given["c"]) == (2, 2, [])
    assert "other hosts cannot reach http://0.0.0.0:3: set ADVERTISED_URL" in members["c"].refused
    members["d"] = assignor("orders-4:8080")
    members["d"].network = "another host"
    assert partitions_of(rebalance(members)) == {"a": [], "b": [], "c": [], "d": [0, 1, 2, 3]}
    assert members["d"].refused == ""


@pytest.mark.parametrize("leader", ["a", "b"])
@pytest.mark.parametrize("names", [("old", "new"), ("same", "same")])
def test_members_of_an_earlier_version_interoperate(leader, names):
    def make(kind, name):
        made = assignor(name)
        made.__class__ = kind
        return made

    members = {"a": make(Earlier, names[0]), "b": make(Assignor, names[1])}
    given = partitions_of(rebalance(dict(sorted(members.items(), key=lambda item: item[0] != leader))))
    refuses = leader == "b" and names == ("same", "same")
    assert given == ({"a": [0, 1, 2, 3], "b": []} if refuses else given)
    assert sorted(given["a"] + given["b"]) == [0, 1, 2, 3]
    assert bool(members["b"].refused) == refuses

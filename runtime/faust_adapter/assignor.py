"""Partition assignor in Faust's protocol, with a placement of its own that knows standby replicas.

The leader of the group places the partitions. It sends every member the URLs of all members, with the partitions that
each owns and keeps standby replicas of. Faust's protocol has a field for owners of topics and one for owners of the
changelogs of Faust tables. There are no Faust tables here, so the second field carries the standbys.
"""

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, cast

from faust.assignor.client_assignment import ClientAssignment, ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from yarl import URL

from runtime.group.placement import MemberPlacement, place
from runtime.group.reachability import MemberInfo, network_identity, refused_members


class Metadata(  # type: ignore[call-arg]
    ClientMetadata, serializer="json", include_metadata=False, namespace="@ClientMetadata"
):
    """Faust's metadata with fields of our own, which members of earlier versions ignore."""

    instance: str = ""
    since: float = 0.0
    network: str = ""
    accepted: bool = False
    refused: str = ""
    """Why the leader assigns nothing to the member; empty if it does not refuse it."""
    services: str = ""
    """The services of the member, joined by `+`: those of a composition, or more of them."""


class _CappedCluster:
    """Cluster metadata without the partitions that were added to topics later."""

    def __init__(self, cluster: Any, partitions: int) -> None:
        self._cluster = cluster
        self._partitions = partitions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        numbers = self._cluster.partitions_for_topic(topic)
        return numbers and {p for p in numbers if p < self._partitions}


class Assignor(PartitionAssignor):
    """Assigns partitions in Faust's protocol.

    Members may consume different topics: each gets those of its own among the topics of a partition number. Faust's own
    placement is used while a topic does not have all its partitions yet.

    Partitions that an operator adds to a topic are consumed, too: the owner of partition p also gets
    p + `topic_partitions`, p + 2 * `topic_partitions` and so on. No key belongs there, so state and owners stay.
    """

    topic_partitions: int | None = None
    """Partitions that the topics were created with; `None` if all present partitions count."""

    services: str = ""
    """The services of this worker, for the other members."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas)
        self.network = network_identity()
        self.refused: str | None = None
        """Why the group assigns nothing to this worker; empty if it does not refuse it, `None` before it joined."""
        self._instance, self._since = uuid.uuid4().hex, time.time()

    def report_stores(self, topics: Iterable[str], partitions: Iterable[int]) -> None:
        """Reports partitions with stores on disk as standbys: the leader prefers this worker for them."""
        self._assignment = ClientAssignment(actives={}, standbys={topic: sorted(partitions) for topic in topics})

    def owners(self) -> dict[int, URL]:
        """URL of the owner of each partition."""
        return {p: urls[0] for p, urls in _by_partition(self.external_topics_metadata()).items()}

    def standbys(self) -> dict[int, list[URL]]:
        """URLs of the workers with a standby replica of each partition."""
        return _by_partition(self.tables_metadata())

    @property
    def _metadata(self) -> Metadata:
        faust = super()._metadata
        return Metadata(
            assignment=faust.assignment,
            url=faust.url,
            changelog_distribution=faust.changelog_distribution,
            external_topic_distribution=faust.external_topic_distribution,
            topic_groups=faust.topic_groups,
            instance=self._instance,
            since=self._since,
            network=self.network,
            accepted=self.refused == "",
            services=self.services,
        )

    def on_assignment(self, assignment: Any) -> None:
        super().on_assignment(assignment)
        self.refused = cast("Metadata", Metadata.loads(self._decompress(assignment.user_data))).refused

    @classmethod
    def _get_client_metadata(cls, metadata: Any) -> Metadata:
        return cast("Metadata", Metadata.loads(metadata.user_data))

    def _perform_assignment(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        subscriptions = {member: sorted(metadata.subscription) for member, metadata in member_metadata.items()}
        topics = sorted({topic for subscribed in subscriptions.values() for topic in subscribed})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        partitions = min(counts.values()) if self.topic_partitions is None else self.topic_partitions
        if min(counts.values()) < partitions:
            return super()._perform_assignment(_CappedCluster(cluster, partitions), member_metadata)
        clients = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        self._update_member_urls(clients)
        refused = refused_members({member: _member_info(client) for member, client in clients.items()})
        before = {
            member: _placement(client.assignment, partitions)
            for member, client in clients.items()
            if member not in refused
        }
        placements = place(before, partitions, self.replicas)
        with_refused = placements | {member: MemberPlacement() for member in refused}
        assignments = self._protocol_assignments(
            {
                member: ClientAssignment(
                    actives={
                        topic: [p for p in range(counts[topic]) if p % partitions in placement.owned]
                        for topic in subscriptions[member]
                    },
                    standbys={topic: sorted(placement.standby) for topic in subscriptions[member]},
                )
                for member, placement in with_refused.items()
            },
            {self._member_urls[member]: {topics[0]: sorted(p.standby)} for member, p in placements.items()},
            {self._member_urls[member]: dict.fromkeys(topics, sorted(p.owned)) for member, p in placements.items()},
            dict.fromkeys(topics, 0),
        )
        for member, reason in refused.items():
            self._refuse(assignments[member], reason)
        return assignments

    def _refuse(self, assignment: Any, reason: str) -> None:
        """Adds the reason to the empty assignment of a refused member."""
        metadata = cast("Metadata", Metadata.loads(self._decompress(assignment.user_data)))
        metadata.refused = reason
        assignment.user_data = self._compress(metadata.dumps())


def _member_info(client: Metadata) -> MemberInfo:
    return MemberInfo(client.url, client.instance, client.since, client.network, client.accepted)


def _placement(assignment: ClientAssignment, partitions: int) -> MemberPlacement:
    return MemberPlacement(
        {p for numbers in assignment.actives.values() for p in numbers if p < partitions},
        {p for numbers in assignment.standbys.values() for p in numbers if p < partitions},
    )


def _by_partition(partitions: Mapping[str, Mapping[str, Iterable[int]]]) -> dict[int, list[URL]]:
    """Base URLs by partition, from partition numbers by URL and topic."""
    result: dict[int, list[URL]] = {}
    for url, topics in sorted(partitions.items()):
        for partition in {p for numbers in topics.values() for p in numbers}:
            result.setdefault(partition, []).append(URL(url))
    return result

"""Faust's partition assignor with a placement of our own, which keeps standbys in mind.

The group's leader places, and tells every member every other's URL, what it owns and what it is standby of. Faust has a
field for the owners of topics and one for the owners of its tables' changelogs; as it knows of no tables, the second is
free to tell the standbys.
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
    """What members and leader tell each other, with what Faust has no field for; earlier versions pass it over."""

    instance: str = ""
    since: float = 0.0
    network: str = ""
    accepted: bool = False
    refused: str = ""
    """Told to a member: why it is given nothing."""


class _Capped:
    """Metadata of a cluster in which no topic has more partitions than the deployment's topics were made with."""

    def __init__(self, cluster: Any, partitions: int) -> None:
        self._cluster = cluster
        self._partitions = partitions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found = self._cluster.partitions_for_topic(topic)
        return found and {p for p in found if p < self._partitions}


class Assignor(PartitionAssignor):
    """Speaks Faust's protocol, and leaves members that do not read the same topics, as in an upgrade, to Faust.

    A topic that an operator has given more partitions is read whole: the owner of partition p reads p + `made_with`,
    p + 2 * `made_with` and so on, too. No key belongs there, so that state and its owners stay as they are.
    """

    made_with: int | None = None
    """How many partitions the deployment's topics were made with; `None` if all that there are count."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas)
        self.network = network_identity()
        self.refused: str | None = None
        """Why the group gives this worker nothing; empty if it does not refuse it, `None` before it has said so."""
        self._instance, self._since = uuid.uuid4().hex, time.time()

    def found(self, topics: Iterable[str], partitions: Iterable[int]) -> None:
        """Tells what a worker that starts has on its disk: to the others it is as if it had been their standby."""
        self._assignment = ClientAssignment(actives={}, standbys={topic: sorted(partitions) for topic in topics})

    def owners(self) -> dict[int, URL]:
        """By partition, the URL of the worker that owns it."""
        return {p: urls[0] for p, urls in _by_partition(self.external_topics_metadata()).items()}

    def standbys(self) -> dict[int, list[URL]]:
        """By partition, the URLs of the workers that keep a copy."""
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
        )

    def on_assignment(self, assignment: Any) -> None:
        super().on_assignment(assignment)
        self.refused = cast("Metadata", Metadata.loads(self._decompress(assignment.user_data))).refused

    @classmethod
    def _get_client_metadata(cls, metadata: Any) -> Metadata:
        return cast("Metadata", Metadata.loads(metadata.user_data))

    def _perform_assignment(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        read = {frozenset(m.subscription) for m in member_metadata.values()}
        topics = sorted(next(iter(read)))
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        least = min(counts.values()) if self.made_with is None else self.made_with
        if len(read) > 1 or min(counts.values()) < least:
            return super()._perform_assignment(_Capped(cluster, least), member_metadata)
        clients = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        self._update_member_urls(clients)
        refused = refused_members({member: _claim(client) for member, client in clients.items()})
        before = {
            member: _share(client.assignment, least) for member, client in clients.items() if member not in refused
        }
        shares = place(before, least, self.replicas)
        given = shares | {member: MemberPlacement() for member in refused}
        told = self._protocol_assignments(
            {
                member: ClientAssignment(
                    actives={topic: [p for p in range(counts[topic]) if p % least in share.owned] for topic in topics},
                    standbys={topic: sorted(share.standby) for topic in topics},
                )
                for member, share in given.items()
            },
            {self._member_urls[member]: {topics[0]: sorted(share.standby)} for member, share in shares.items()},
            {self._member_urls[member]: dict.fromkeys(topics, sorted(share.owned)) for member, share in shares.items()},
            dict.fromkeys(topics, 0),
        )
        for member, reason in refused.items():
            self._tell(told[member], reason)
        return told

    def _tell(self, assignment: Any, reason: str) -> None:
        """Puts the reason into what a member is told, for whom nothing else is there."""
        metadata = cast("Metadata", Metadata.loads(self._decompress(assignment.user_data)))
        metadata.refused = reason
        assignment.user_data = self._compress(metadata.dumps())


def _claim(client: Metadata) -> MemberInfo:
    return MemberInfo(client.url, client.instance, client.since, client.network, client.accepted)


def _share(assignment: ClientAssignment, partitions: int) -> MemberPlacement:
    return MemberPlacement(
        {p for numbers in assignment.actives.values() for p in numbers if p < partitions},
        {p for numbers in assignment.standbys.values() for p in numbers if p < partitions},
    )


def _by_partition(told: Mapping[str, Mapping[str, Iterable[int]]]) -> dict[int, list[URL]]:
    result: dict[int, list[URL]] = {}
    for url, topics in sorted(told.items()):
        for partition in {p for numbers in topics.values() for p in numbers}:
            result.setdefault(partition, []).append(URL(url))
    return result

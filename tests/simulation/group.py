"""The group coordinator: members, generations, assignments, and the offsets that a group has committed.

As in Apache Kafka's classic protocol: members join, the leader sends the assignment, heartbeats announce rebalances.
"""

from aiokafka.errors import IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

from runtime.errors import MemberFenced
from runtime.model.log_ids import OffsetMetadata
from tests.simulation.network import Pending

EMPTY, PREPARING, COMPLETING, STABLE = "empty", "preparing", "completing", "stable"


class UnstableOffsets(Exception):
    """A requested offset is part of an open transaction."""


class Member:
    def __init__(self, name, session_s):
        self.name = name
        self.session_s = session_s
        self.deadline = 0.0
        self.watched = False
        self.joining = None
        self.syncing = None
        self.assignment = ((), ())

    @property
    def waits(self):
        """Whether a JoinGroup or SyncGroup is unanswered: such a member needs no heartbeat."""
        return self.joining is not None or self.syncing is not None


class Group:
    """A consumer group. `random` decides the order of its members."""

    def __init__(self, broker, name):
        self.name = name
        self.members = {}
        self.generation = 0
        self.state = EMPTY
        self.leader = None
        self._offsets = {}
        self._records = 0
        self.pending = {}
        self.rebalances = 0
        self._broker = broker
        self._loop = broker.loop
        self._names = 0
        self._placed = []

    def join(self, client, member_id, session_s, rebalance_s):
        """JoinGroup. Answers (generation, member id, members for the leader else None) once all members have joined."""
        if member_id and member_id not in self.members:
            raise UnknownMemberIdError
        if not member_id:
            self._names += 1
            member_id = f"{client}-{self._names}"
            self.members[member_id] = Member(member_id, session_s)
        member = self.members[member_id]
        if self._unchanged(member):
            return self.generation, member_id, list(self.members) if member_id == self.leader else None
        member.joining = Pending()
        self._prepare(rebalance_s)
        self._watch(member)
        answer = member.joining
        if all(m.joining for m in self.members.values()):
            self._loop.at(self._loop.now + 0.01, None, self._complete_if_all, self.rebalances)
        return answer

    def sync(self, member_id, generation, assignment):
        """SyncGroup. Answers the member's partitions once the leader has sent the assignment."""
        member = self._known(member_id, generation)
        if self.state is PREPARING:
            raise RebalanceInProgressError
        if self.state is STABLE:
            self._heard(member)
            return member.assignment
        if assignment is None:
            member.syncing = Pending()
            return member.syncing
        for name, partitions in assignment.items():
            self.members[name].assignment = partitions
        self.state = STABLE
        for other in self.members.values():
            self._heard(other)
            waiting, other.syncing = other.syncing, None
            if waiting is not None:
                waiting.answer(other.assignment)
        return member.assignment

    def heartbeat(self, member_id, generation):
        member = self._known(member_id, generation)
        self._heard(member)
        if self.state is PREPARING:
            raise RebalanceInProgressError

    def leave(self, member_id):
        if member_id in self.members:
            self._remove(member_id)

    def commit(self, member_id, generation, offsets):
        """OffsetCommit."""
        member = self._known(member_id, generation)
        if self.state is COMPLETING:
            raise RebalanceInProgressError
        self._heard(member)
        self._keep(self._recorded(offsets))

    def commit_in_transaction(self, producer, member_id, generation, offsets):
        """TxnOffsetCommit (KIP-447). Member and generation are checked when the request arrives, not at the commit."""
        try:
            self._known(member_id, generation)
        except (UnknownMemberIdError, IllegalGenerationError) as error:
            raise MemberFenced(type(error).__name__) from None
        self.pending.setdefault(producer, {}).update(self._recorded(offsets))

    def end_transaction(self, producer, committed):
        offsets = self.pending.pop(producer, {})
        if committed:
            self._keep(offsets)

    def fetch(self, partitions, stable):
        """OffsetFetch. With `stable`, raises `UnstableOffsets` while an open transaction holds one of the offsets."""
        if stable and any(tp in held for held in self.pending.values() for tp in partitions):
            raise UnstableOffsets
        return {tp: self._offsets[tp][1] if tp in self._offsets else None for tp in partitions}

    def offset(self, tp):
        """The committed offset of a partition, or `None`."""
        return self._offsets[tp][1].offset if tp in self._offsets else None

    def read(self, tp):
        """The offset before which all services that ever read the partition have processed everything."""
        if tp not in self._offsets:
            return 0
        committed = self._offsets[tp][1]
        metadata = OffsetMetadata.parse(committed.metadata)
        return min([committed.offset, *(metadata.progress.elsewhere.values() if metadata else ())])

    def _recorded(self, offsets):
        self._records += 1
        return {tp: (self._records, committed) for tp, committed in offsets.items()}

    def _keep(self, recorded):
        """The offset written last wins, in whatever order the transactions end."""
        self._broker.newcomer_starts.observe(self.name, {tp: committed for tp, (_, committed) in recorded.items()})
        for tp, record in recorded.items():
            if tp not in self._offsets or self._offsets[tp] < record:
                self._offsets[tp] = record

    def _known(self, member_id, generation):
        member = self.members.get(member_id)
        if member is None:
            raise UnknownMemberIdError
        if generation != self.generation:
            raise IllegalGenerationError
        return member

    def _unchanged(self, member):
        """Whether a rejoining member gets the current generation, as with unchanged metadata. Random."""
        stands = self.state is COMPLETING or (self.state is STABLE and member.name != self.leader)
        return member.name in self._placed and stands and self._broker.random.random() < 0.5

    def _prepare(self, rebalance_s):
        if self.state is PREPARING:
            return
        self.state = PREPARING
        self.rebalances += 1
        for member in self.members.values():
            waiting, member.syncing = member.syncing, None
            if waiting is not None:
                self._heard(member)
                waiting.fail(RebalanceInProgressError())
        self._loop.at(self._loop.now + rebalance_s, None, self._complete, self.rebalances)

    def _complete_if_all(self, rebalance):
        if all(m.joining for m in self.members.values()):
            self._complete(rebalance)

    def _complete(self, rebalance):
        """All members have joined, or their time to join is over."""
        if self.state is not PREPARING or rebalance != self.rebalances:
            return
        for name in [name for name, member in self.members.items() if member.joining is None]:
            del self.members[name]
        if not self.members:
            self.state = EMPTY
            return
        self.generation += 1
        self.state = COMPLETING
        names = self._placed = list(self.members)
        leader = self.leader = names[0]
        for name, member in self.members.items():
            self._heard(member)
            waiting, member.joining = member.joining, None
            member.assignment = ((), ())
            waiting.answer((self.generation, name, names if name == leader else None))

    def _remove(self, member_id):
        member = self.members.pop(member_id)
        for waiting in (member.joining, member.syncing):
            if waiting is not None:
                waiting.fail(UnknownMemberIdError())
        if not self.members:
            self.state = EMPTY
        elif self.state is PREPARING:
            self._complete_if_all(self.rebalances)
        else:
            self._prepare(max(m.session_s for m in self.members.values()))

    def _heard(self, member):
        member.deadline = self._loop.now + member.session_s

    def _watch(self, member):
        self._heard(member)
        if not member.watched:
            member.watched = True
            self._loop.at(member.deadline, None, self._look, member)

    def _look(self, member):
        if self.members.get(member.name) is not member:
            return
        if member.waits:
            self._heard(member)
        if self._loop.now >= member.deadline:
            self._remove(member.name)
        else:
            self._loop.at(member.deadline, None, self._look, member)

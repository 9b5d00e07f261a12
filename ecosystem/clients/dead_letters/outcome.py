"""Decides what becomes of each selected dead letter in a redrive."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from ecosystem.clients.dead_letters.dead_letter import MAX_REDRIVES, DeadLetter, DeadLetterId
from ecosystem.clients.dead_letters.records import RedriveNote, read_dead_letters
from ecosystem.clients.dead_letters.redrives import RecordId, Redrives, record_of
from ecosystem.clients.dead_letters.replacements import Replacements
from ecosystem.clients.reader import partition_count, partitions_of
from ecosystem.clients.wording import counted
from runtime.common.partitioning import describes_misplaced, partition_of
from runtime.common.settings import Settings
from schemas.topics import CATALOGUE

Wanted = Callable[[DeadLetter], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a redrive may write.

    Arguments:
        overwrite: also dead letters whose key has a newer record in a compacted topic.
        max_redrives: after which a message that failed each time is quarantined; `None`: never.
        redriven: only dead letters that were, or were not, redriven before; `None`: both.
    """

    overwrite: bool = False
    max_redrives: int | None = MAX_REDRIVES
    redriven: bool | None = None


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a dead letter is written to, and the number of this redrive of its message."""

    partition: int
    count: int


@dataclass
class RedriveOutcome:
    """What is decided of the selected dead letters, and what happened to them."""

    targets: dict[DeadLetterId, Target] = field(default_factory=dict)
    """Are to be written."""
    duplicates: dict[DeadLetterId, DeadLetterId] = field(default_factory=dict)
    """Those of a record that another dead letter in `targets` has, too: it is written once."""
    written: dict[DeadLetterId, RedriveNote] = field(default_factory=dict)
    written_before: dict[DeadLetterId, RedriveNote] = field(default_factory=dict)
    rejected: dict[DeadLetterId, str] = field(default_factory=dict)
    """Can never be redriven, and why."""
    quarantined: dict[DeadLetterId, str] = field(default_factory=dict)
    """Failed again after each of too many redrives, and how many."""
    replaced: dict[DeadLetterId, str] = field(default_factory=dict)
    """Left alone: their key has a newer record in a compacted topic, and which one."""

    @property
    def waiting(self) -> list[DeadLetterId]:
        """Those that are to be written, and are not yet."""
        return [id_ for id_ in self.targets if id_ not in self.written]

    @property
    def found(self) -> set[DeadLetterId]:
        """All selected dead letters."""
        return {
            *(*self.targets, *self.duplicates, *self.written_before),
            *(*self.rejected, *self.quarantined, *self.replaced),
        }


async def decide(settings: Settings, topic: str, wanted: Wanted, rules: Rules, outcome: RedriveOutcome) -> None:
    """Decides what becomes of the dead letters of `topic` that are wanted. Writes nothing but `outcome`."""
    redrives = await Redrives.read(settings, [topic])
    partitions_of_topic = len(await partitions_of(settings, [topic]))
    partitions = await partition_count(settings)
    replacements: Replacements | None = None
    if any(one.name == topic and one.retention.compacted for one in CATALOGUE):
        candidates = _candidates(settings, topic, wanted, redrives)
        replacements = await Replacements.read(settings, topic, candidates, partitions, overwrite=rules.overwrite)
    first: dict[RecordId, DeadLetterId] = {}
    async for letter in selected(settings, topic, wanted):
        note, count = redrives.note(letter), redrives.count(letter)
        if rules.redriven is not None and rules.redriven != (note is not None):
            continue
        if note is not None:
            outcome.written_before[letter.id] = note
        elif reason := _obstacle(letter, partitions_of_topic):
            outcome.rejected[letter.id] = reason
        elif rules.max_redrives is not None and count >= rules.max_redrives:
            outcome.quarantined[letter.id] = quarantine_text(count)
        elif (record := record_of(letter)) is not None and record in first:
            outcome.duplicates[letter.id] = first[record]
        elif replacements is not None and (reason := replacements.reason_to_skip(letter)):
            outcome.replaced[letter.id] = reason
        else:
            outcome.targets[letter.id] = Target(_target_partition(letter, partitions), count + 1)
            if record is not None:
                first[record] = letter.id


def quarantine_text(count: int) -> str:
    """Says why a dead letter is quarantined."""
    return f"quarantined: redriven {counted(count, 'time')}, failed each time"


async def selected(settings: Settings, topic: str, wanted: Wanted) -> AsyncIterator[DeadLetter]:
    """Yields the dead letters of a topic that are wanted."""
    async for letter in read_dead_letters(settings, [topic]):
        if isinstance(letter, DeadLetter) and wanted(letter):
            yield letter


async def _candidates(settings: Settings, topic: str, wanted: Wanted, redrives: Redrives) -> AsyncIterator[DeadLetter]:
    """Yields the selected dead letters that may be redriven."""
    async for letter in selected(settings, topic, wanted):
        if letter.truncated is None and not redrives.has_note(letter.id):
            yield letter


def _obstacle(letter: DeadLetter, partitions: int) -> str | None:
    """Says why a dead letter can never be redriven."""
    if letter.lost_until is not None:
        return "it stands for lost records: there is nothing to write back"
    if letter.truncated is not None:
        return f"it was truncated: of {letter.truncated} bytes only the beginning is kept"
    if not 0 <= letter.from_partition < partitions:
        return f"it is from partition {letter.from_partition}, and its topic has {partitions}"
    return None


def _target_partition(letter: DeadLetter, partitions: int) -> int:
    """Returns the original partition, or that of the key if the record was misplaced."""
    if letter.key is not None and describes_misplaced(letter.error):
        return partition_of(letter.key, partitions)
    return letter.from_partition

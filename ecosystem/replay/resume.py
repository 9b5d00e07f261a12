"""The resume file of a replay: what has been sent, so that an interrupted replay goes on with the rest.

Lines of JSON. The first says which replay it is. Each batch has a line before it is sent, with its records and from
which offsets on they will lie, and a line once all of them are acknowledged. Each line is on disk before the next
step. So after a crash at any point at most one batch is in doubt, and the topics tell which of its records they have.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ecosystem.replay.records import Place
from ecosystem.replay.selection import digest

_VERSION = 1


class ResumeError(Exception):
    """The file cannot be used. The text says why, and the remedy."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A batch of which is not known what was sent.

    Arguments:
        replays: its records, with how often each is replayed with it.
        begins: by topic and partition the first offset at which a record may lie.
    """

    replays: Mapping[Place, int] = field(default_factory=dict)
    begins: Mapping[tuple[str, int], int] = field(default_factory=dict)


class ResumeFile:
    """The open file. One process at a time has it.

    Arguments:
        path: of the file; it is made if it does not exist.
        described: the replay, as JSON has it. A file of another replay is refused.
    """

    def __init__(self, path: Path, described: Mapping[str, Any]) -> None:
        self.sent: set[Place] = set()
        """Records that were acknowledged. Those that the brokers refused are tried again."""
        self.doubtful = Doubtful()
        self.resumed = False
        """Whether an earlier run has sent something."""
        self._path = path
        self._described = described

    def __enter__(self) -> Self:
        """Reads the file. Raises `ResumeError`."""
        try:
            if not self._path.exists():
                self._create()
            self._file = self._path.open("r+b")
        except OSError as error:
            raise ResumeError(f"{self._path}: {error.strerror}: name a file in a folder that can be written") from None
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, batch: Doubtful) -> None:
        """Notes a batch that is about to be sent."""
        replays = {str(place): count for place, count in batch.replays.items()}
        begins = {f"{topic}/{partition}": offset for (topic, partition), offset in batch.begins.items()}
        self._append({"begin": replays, "from": begins})

    def end(self, sent: Iterable[Place]) -> None:
        """Notes which records of the batch were acknowledged; the brokers refused the others."""
        known = set(sent)
        self._append({"sent": [*map(str, known)]})
        self.sent |= known

    def _create(self) -> None:
        """Makes the file with its first line, all at once: no run ever sees one without."""
        first = {"replay": _VERSION, "selection": digest(self._described), "of": self._described}
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(_line(first))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResumeError(f"{self._path} is in use by another replay: wait for its end") from None

    def _read(self) -> None:
        lines = self._file.read().split(b"\n")
        torn = lines.pop()
        self._check_first(lines)
        for number, text in enumerate(lines[1:], 2):
            try:
                self._apply(json.loads(text))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ResumeError(
                    f"{self._path} is damaged in line {number}: give another file; what it says was sent is sent again"
                ) from None
        if torn:  # the crash came as it was written, and nothing had been done on its account
            self._file.seek(-len(torn), os.SEEK_END)
            self._file.truncate()
        self._file.seek(0, os.SEEK_END)

    def _check_first(self, lines: Sequence[bytes]) -> None:
        try:
            first = json.loads(lines[0])
            version, selection = first["replay"], first["selection"]
        except (ValueError, KeyError, TypeError, IndexError):
            raise ResumeError(f"{self._path} is no resume file of a replay: name another file") from None
        if version != _VERSION:
            raise ResumeError(f"{self._path} was written by another version of this command: name another file")
        if selection != digest(self._described):
            raise ResumeError(
                f"{self._path} belongs to another replay: repeat its options ({_shown(first.get('of'))}), "
                "or name another file"
            )

    def _apply(self, line: Mapping[str, Any]) -> None:
        self.resumed = True
        if "begin" in line:
            replays = {Place.parse(place): int(count) for place, count in line["begin"].items()}
            self.doubtful = Doubtful(replays, {_partition(text): int(offset) for text, offset in line["from"].items()})
        else:
            self.sent.update(map(Place.parse, line["sent"]))
            self.doubtful = Doubtful()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(_line(line))
        self._file.flush()
        os.fsync(self._file.fileno())


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, default=str).encode() + b"\n"


def _partition(text: str) -> tuple[str, int]:
    topic, partition = text.rsplit("/", 1)
    return topic, int(partition)


def _shown(described: object) -> str:
    if not isinstance(described, Mapping):
        return "unknown"
    values = ((name, ",".join(map(str, v)) if isinstance(v, list) else v) for name, v in described.items())
    return " ".join(f"{name}={value}" for name, value in values)

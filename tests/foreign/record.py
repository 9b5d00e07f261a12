"""A record as it is handed to a producer of another make."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Foreign:
    """What a foreign producer is to write, and how. Header names are bytes: some clients take any.

    `partitioner` is one of the client's own; without it, and without `partition`, the client does as it does by
    default. `transaction` says how one ends that the record is written in: `commit` or `abort`.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    codec: str = "none"
    partitioner: str | None = None
    transaction: str | None = None


class Place(NamedTuple):
    """Where a record came to stand."""

    partition: int
    offset: int


class WriteError(Exception):
    """The broker, or the client itself, refused the record."""


class Writer(Protocol):
    """A producer of another make."""

    async def write(self, record: Foreign) -> Place:
        """Returns once the broker has the record. Raises `WriteError`."""

    async def stop(self) -> None: ...

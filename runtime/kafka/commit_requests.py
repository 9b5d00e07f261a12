"""The requests of a commit, encoded and decoded by hand (kafka.apache.org/protocol).

A transaction is five requests of up to a hundred partitions; without transactions, a commit is three. aiokafka
describes requests by schemas, and walks through the schema for each field: these classes pack all fields of a partition
at once. They rely on the attributes and methods by which `AIOKafkaConnection` decodes the response to a request.

Versions: the newest one of transaction protocol 1 with the layout before flexible fields; TxnOffsetCommit v3 has
flexible fields, and is the first that names generation and member id (KIP-447).
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import ClassVar, Self

from aiokafka.errors import IncompatibleBrokerVersion

from runtime.model.log_ids import CommittedOffset
from runtime.model.records import Membership

_HEADER = struct.Struct(">ihhih")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_CODE = struct.Struct(">ih")
"""Partition or throttle time, and error code."""
_PRODUCER = struct.Struct(">qh")
_ENDED = struct.Struct(">qh?")
_INITIALISED = struct.Struct(">ihqh")
_ACKS_ALL = -1
_PRODUCE = struct.Struct(">hii")
_BATCH = struct.Struct(">ii")
_ACK = struct.Struct(">ihq")
_TIMES = {3: 8, 4: 8}
"""Bytes that follow the offset in a response to Produce: timestamp, and since version 5 the log start offset."""
_HAS_REASONS = 8
"""First version of Produce whose response says why a batch was not written."""
_MEMBER = struct.Struct(">qhi")
_OFFSET = struct.Struct(">iqi")
_NO_LEADER_EPOCH = -1
_NULL = b"\xff\xff"

Place = tuple[str, int]
"""Topic and partition. Equal to aiokafka's `TopicPartition`, which takes longer to make."""

Versions = Mapping[int, tuple[int, int]]
"""Lowest and highest version of each request that a broker knows."""

Failures = Mapping[Place | None, int]
"""Error code of each partition that failed; of the request as a whole: `None`."""


class Response:
    """A response: error codes, by what they are about."""

    __slots__ = ("failures",)

    def __init__(self, failures: Failures) -> None:
        self.failures = failures


class ProducerIdResponse(Response):
    """The producer id and epoch of a transactional id."""

    __slots__ = ("epoch", "producer_id")

    def __init__(self, failures: Failures, producer_id: int, epoch: int) -> None:
        super().__init__(failures)
        self.producer_id = producer_id
        self.epoch = epoch


class ProduceResponse(Response):
    """Base offsets of the batches that were written, and the broker's words on those that were not."""

    __slots__ = ("offsets", "reasons")

    def __init__(self, failures: Failures, offsets: dict[Place, int], reasons: dict[Place, str]) -> None:
        super().__init__(failures)
        self.offsets = offsets
        self.reasons = reasons


class CommitRequest:
    """A request: its bytes in all versions, and the decoder of its response, as `AIOKafkaConnection` calls it."""

    API_KEY: ClassVar[int]
    LOWEST: ClassVar[int]
    HIGHEST: ClassVar[int]
    FLEXIBLE: ClassVar[bool] = False

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.version = self.HIGHEST
        self.correlation_id = 0

    @property
    def RESPONSE_TYPE(self) -> Self:  # noqa: N802  # aiokafka's name
        """What decodes the response: the request. Not an attribute, which would be a cycle."""
        return self

    @classmethod
    def newest(cls, versions: Versions) -> int | None:
        """The newest version that a broker knows as well; `None` if there is none."""
        lowest, highest = versions.get(cls.API_KEY, (0, -1))
        version = min(highest, cls.HIGHEST)
        return version if version >= max(lowest, cls.LOWEST) else None

    def frame(self, versions: Versions, number: int, client_id: str) -> bytes:
        """All that is written to a broker.

        Arguments:
            versions: of the broker.
            number: correlation id.
            client_id: named in the broker's logs.

        Raises `IncompatibleBrokerVersion`.
        """
        if (version := self.newest(versions)) is None:
            raise IncompatibleBrokerVersion(
                f"the broker does not know {type(self).__name__} in a version of {self.LOWEST} to {self.HIGHEST}"
            )
        self.version = version
        client = client_id.encode()
        tags = b"\0" if self.FLEXIBLE else b""
        size = _HEADER.size - _INT32.size + len(client) + len(tags) + len(self.body)
        header = _HEADER.pack(size, self.API_KEY, self.version, number, len(client))
        return b"".join((header, client, tags, self.body))

    def parse_response_header(self, data: BytesIO) -> Self:
        (self.correlation_id,) = _INT32.unpack(data.read(4))
        if self.FLEXIBLE:
            reader = _Reader(data.getvalue(), data.tell())
            reader.skip_tags()
            data.seek(reader.at)
        return self

    def decode(self, data: BytesIO) -> Response:
        return self._response(data.getvalue(), data.tell())

    def _response(self, raw: bytes, at: int) -> Response:
        """Decodes throttle time and error code, as most responses have them."""
        _, code = _CODE.unpack_from(raw, at)
        return Response({None: code} if code else {})


class InitProducerId(CommitRequest):
    """Asks for producer id and epoch. Fences earlier producers of the same id, and ends their transaction.

    Without a transactional id: for a producer without transactions, whose id is new.
    """

    API_KEY, LOWEST, HIGHEST = 22, 0, 1

    def __init__(self, transactional_id: str | None, timeout_ms: int) -> None:
        super().__init__(_nullable(transactional_id) + _INT32.pack(timeout_ms))

    def _response(self, raw: bytes, at: int) -> Response:
        _, code, producer_id, epoch = _INITIALISED.unpack_from(raw, at)
        return ProducerIdResponse({None: code} if code else {}, producer_id, epoch)


class AddPartitionsToTxn(CommitRequest):
    """Tells the transaction coordinator which partitions a transaction writes to."""

    API_KEY, LOWEST, HIGHEST = 24, 0, 2

    def __init__(self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[Place]) -> None:
        topics: dict[str, list[int]] = {}
        for topic, partition in partitions:
            topics.setdefault(topic, []).append(partition)
        parts = [_text(transactional_id), _PRODUCER.pack(producer_id, epoch), _INT32.pack(len(topics))]
        for topic, numbers in topics.items():
            parts += _text(topic), struct.pack(f">i{len(numbers)}i", len(numbers), *numbers)
        super().__init__(b"".join(parts))

    def _response(self, raw: bytes, at: int) -> Response:
        return _codes_of_partitions(raw, at)


class AddOffsetsToTxn(CommitRequest):
    """Tells the transaction coordinator that offsets of a group will follow."""

    API_KEY, LOWEST, HIGHEST = 25, 0, 2

    def __init__(self, transactional_id: str, producer_id: int, epoch: int, group: str) -> None:
        super().__init__(_text(transactional_id) + _PRODUCER.pack(producer_id, epoch) + _text(group))


class EndTxn(CommitRequest):
    """Commits a transaction."""

    API_KEY, LOWEST, HIGHEST = 26, 0, 2

    def __init__(self, transactional_id: str, producer_id: int, epoch: int) -> None:
        super().__init__(_text(transactional_id) + _ENDED.pack(producer_id, epoch, True))


class Produce(CommitRequest):
    """Writes one record batch to each of some partitions, with acks=all.

    Later versions, from 12 on, are for transaction protocol 2.
    """

    API_KEY, LOWEST, HIGHEST = 0, 3, 8

    def __init__(self, transactional_id: str | None, timeout_ms: int, batches: Mapping[Place, bytes]) -> None:
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for (topic, partition), batch in batches.items():
            topics.setdefault(topic, []).append((partition, batch))
        parts = [_nullable(transactional_id), _PRODUCE.pack(_ACKS_ALL, timeout_ms, len(topics))]
        for topic, of_topic in topics.items():
            parts += _text(topic), _INT32.pack(len(of_topic))
            for partition, batch in of_topic:
                parts += _BATCH.pack(partition, len(batch)), batch
        super().__init__(b"".join(parts))

    def _response(self, raw: bytes, at: int) -> Response:
        failures: dict[Place | None, int] = {}
        offsets: dict[Place, int] = {}
        reasons: dict[Place, str] = {}
        skipped, has_reasons = _ACK.size + _TIMES.get(self.version, 16), self.version >= _HAS_REASONS
        (topics,) = _INT32.unpack_from(raw, at)
        at += 4
        for _ in range(topics):
            topic, at = _read_text(raw, at)
            (count,) = _INT32.unpack_from(raw, at)
            at += 4
            for _ in range(count):
                partition, code, offset = _ACK.unpack_from(raw, at)
                at += skipped
                reason = ""
                if has_reasons:
                    (errors,) = _INT32.unpack_from(raw, at)
                    at += 4
                    for _ in range(errors):
                        _, at = _read_text(raw, at + 4)
                    reason, at = _read_text(raw, at)
                tp = topic, partition
                if code:
                    failures[tp] = code
                    reasons[tp] = reason
                else:
                    offsets[tp] = offset
        return ProduceResponse(failures, offsets, reasons)


class TxnOffsetCommit(CommitRequest):
    """Adds offsets to a transaction, under the membership with which they were polled."""

    API_KEY, LOWEST, HIGHEST, FLEXIBLE = 28, 3, 3, True

    def __init__(
        self,
        transactional_id: str,
        group: str,
        producer_id: int,
        epoch: int,
        membership: Membership,
        offsets: Mapping[Place, CommittedOffset],
    ) -> None:
        topics: dict[str, list[tuple[int, CommittedOffset]]] = {}
        for (topic, partition), offset in offsets.items():
            topics.setdefault(topic, []).append((partition, offset))
        parts = [
            _compact_text(transactional_id),
            _compact_text(group),
            _MEMBER.pack(producer_id, epoch, membership.generation),
            _compact_text(membership.member_id),
            b"\0",  # no group instance id
            _unsigned(len(topics) + 1),
        ]
        for topic, of_topic in topics.items():
            parts += _compact_text(topic), _unsigned(len(of_topic) + 1)
            for partition, offset in of_topic:
                parts += _OFFSET.pack(partition, offset.offset, _NO_LEADER_EPOCH), _compact_text(offset.metadata), b"\0"
            parts.append(b"\0")
        parts.append(b"\0")
        super().__init__(b"".join(parts))

    def _response(self, raw: bytes, at: int) -> Response:
        failures: dict[Place | None, int] = {}
        reader = _Reader(raw, at + 4)
        for _ in range(reader.unsigned() - 1):
            topic = reader.text()
            for _ in range(reader.unsigned() - 1):
                partition, code = _CODE.unpack_from(raw, reader.at)
                reader.at += _CODE.size
                reader.skip_tags()
                if code:
                    failures[topic, partition] = code
            reader.skip_tags()
        return Response(failures)


class OffsetCommit(CommitRequest):
    """Commits offsets, under the membership with which they were polled."""

    API_KEY, LOWEST, HIGHEST = 8, 7, 7

    def __init__(self, group: str, membership: Membership, offsets: Mapping[Place, CommittedOffset]) -> None:
        topics: dict[str, list[tuple[int, CommittedOffset]]] = {}
        for (topic, partition), offset in offsets.items():
            topics.setdefault(topic, []).append((partition, offset))
        parts = [
            _text(group),
            _INT32.pack(membership.generation),
            _text(membership.member_id),
            _NULL,  # no group instance id
            _INT32.pack(len(topics)),
        ]
        for topic, of_topic in topics.items():
            parts += _text(topic), _INT32.pack(len(of_topic))
            for partition, offset in of_topic:
                note = offset.metadata.encode()
                parts += _OFFSET.pack(partition, offset.offset, _NO_LEADER_EPOCH), _INT16.pack(len(note)), note
        super().__init__(b"".join(parts))

    def _response(self, raw: bytes, at: int) -> Response:
        return _codes_of_partitions(raw, at)


REQUESTS = (InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, Produce, TxnOffsetCommit, EndTxn)
"""All that a broker with transactions must know."""


def _codes_of_partitions(raw: bytes, at: int) -> Response:
    """Decodes throttle time and the error code of each partition."""
    failures: dict[Place | None, int] = {}
    (topics,) = _INT32.unpack_from(raw, at + 4)
    at += 8
    for _ in range(topics):
        topic, at = _read_text(raw, at)
        (count,) = _INT32.unpack_from(raw, at)
        at += 4
        end = at + _CODE.size * count
        for partition, code in _CODE.iter_unpack(raw[at:end]):
            if code:
                failures[topic, partition] = code
        at = end
    return Response(failures)


@lru_cache(4096)
def _text(value: str) -> bytes:
    """A string. Names of topics recur in every commit."""
    raw = value.encode()
    return _INT16.pack(len(raw)) + raw


def _nullable(value: str | None) -> bytes:
    return _NULL if value is None else _text(value)


def _read_text(raw: bytes, at: int) -> tuple[str, int]:
    """A string, empty if it is null, and the position after it."""
    (size,) = _INT16.unpack_from(raw, at)
    at += _INT16.size
    end = at + max(0, size)
    return raw[at:end].decode(), end


@lru_cache(4096)
def _compact_text(value: str) -> bytes:
    raw = value.encode()
    return _unsigned(len(raw) + 1) + raw


def _unsigned(number: int) -> bytes:
    """A variable-length unsigned integer."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class _Reader:
    """Reads flexible fields."""

    __slots__ = ("at", "raw")

    def __init__(self, raw: bytes, at: int) -> None:
        self.raw = raw
        self.at = at

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def text(self) -> str:
        size = self.unsigned() - 1
        self.at += size
        return self.raw[self.at - size : self.at].decode()

    def skip_tags(self) -> None:
        for _ in range(self.unsigned()):
            self.unsigned()
            size = self.unsigned()
            self.at += size

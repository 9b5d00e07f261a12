"""Scripted brokers: answer the requests of a commit as a test says, over real connections.

They speak the versions of requests that our senders and aiokafka's client use here, and note what they are asked, in
order.
"""

import asyncio
import contextlib
import struct
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

API_VERSIONS, METADATA, FIND_COORDINATOR = "ApiVersions", "Metadata", "FindCoordinator"
INIT, ADD_PARTITIONS, ADD_OFFSETS = "InitProducerId", "AddPartitionsToTxn", "AddOffsetsToTxn"
PRODUCE, COMMIT_OFFSETS, END = "Produce", "TxnOffsetCommit", "EndTxn"
TRANSACTION = (INIT, ADD_PARTITIONS, ADD_OFFSETS, PRODUCE, COMMIT_OFFSETS, END)
PLAIN_OFFSETS = "OffsetCommit"
PLAIN = (INIT, PRODUCE, PLAIN_OFFSETS)
"""The requests of a commit without transactions."""

APIS = {
    18: API_VERSIONS,
    3: METADATA,
    10: FIND_COORDINATOR,
    22: INIT,
    24: ADD_PARTITIONS,
    25: ADD_OFFSETS,
    0: PRODUCE,
    28: COMMIT_OFFSETS,
    26: END,
    8: PLAIN_OFFSETS,
}
VERSIONS = {
    18: (0, 0),
    3: (0, 1),
    10: (0, 1),
    22: (0, 4),
    24: (0, 5),
    25: (0, 4),
    0: (0, 12),
    28: (0, 5),
    26: (0, 5),
    8: (2, 9),
}
"""Lowest and highest version of each request, as a broker of today knows them."""

CLOSE = "close"
"""Answer: the connection is closed. The request is carried out, or not: who knows."""

_LARGE = 10_000_000

Answer = int | str | asyncio.Event | Callable[[str, int], int]
"""An error code, `CLOSE`, an event to wait for before a success, or the code of each topic and partition."""


class Asked(NamedTuple):
    """A request: to which node, its name, version and body."""

    node: int
    name: str
    version: int
    body: bytes


class ScriptedBrokers:
    """Brokers of one cluster. Node ids begin at 1. Any topic exists, with three partitions.

    Attributes:
        asked: requests of commits, in the order in which they came.
        answers: what to answer to the next requests of a name; a success where nothing is left.
        listens: cleared: requests of more than 10 MB are not read; `deaf` counts those.
        garbled: names of requests whose next answer is cut.
        leaders: node that leads a partition; by default node 1.
        coordinators: nodes that coordinate groups (0) and transactional ids (1).
    """

    def __init__(self, nodes: int = 1) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.leaders: dict[tuple[str, int], int] = {}
        self.coordinators = {0: 1, 1: 1}
        self.versions = dict(VERSIONS)
        self.garbled: set[str] = set()
        self.listens = asyncio.Event()
        self.listens.set()
        self.deaf = 0
        self.ports: dict[int, int] = {}
        self._nodes = nodes
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self.ports.values())

    @property
    def names(self) -> list[str]:
        """Names of the requests of commits."""
        return [asked.name for asked in self.asked]

    def of(self, name: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.name == name]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedBrokers"]:
        servers = []
        for node in range(1, self._nodes + 1):
            server = await asyncio.start_server(lambda r, w, node=node: self._serve(node, r, w), "127.0.0.1", 0)
            servers.append(server)
            self.ports[node] = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for server in servers:
                server.close()
            for writer in self._connections:
                writer.close()

    async def _serve(self, node: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of a connection one by one, as a broker does."""
        self._connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                if size > _LARGE:
                    self.deaf += 1
                    await self.listens.wait()
                    try:
                        frame = await reader.readexactly(size)
                    finally:
                        self.deaf -= 1
                else:
                    frame = await reader.readexactly(size)
                key, version, correlation, client = struct.unpack_from(">hhih", frame)
                flexible = APIS[key] == COMMIT_OFFSETS
                body = frame[10 + client + flexible :]
                answer = await self._answer(node, APIS[key], version, body)
                if answer is None:
                    break
                if APIS[key] in self.garbled:
                    self.garbled.remove(APIS[key])
                    answer = answer[:5]
                answer = struct.pack(">i", correlation) + (b"\0" if flexible else b"") + answer
                writer.write(struct.pack(">i", len(answer)) + answer)
        self._connections.discard(writer)
        writer.close()

    async def _answer(self, node: int, name: str, version: int, body: bytes) -> bytes | None:
        if name in TRANSACTION or name in PLAIN:
            self.asked.append(Asked(node, name, version, body))
        planned: Answer = self.answers[name].popleft() if self.answers[name] else 0
        if planned == CLOSE:
            return None
        if isinstance(planned, asyncio.Event):
            await planned.wait()
            planned = 0
        code_of: Callable[[str, int], int] = planned if callable(planned) else lambda *_: planned
        handlers = {
            API_VERSIONS: self._api_versions,
            METADATA: self._metadata,
            FIND_COORDINATOR: self._find_coordinator,
            INIT: self._init_producer_id,
            ADD_PARTITIONS: self._add_partitions,
            ADD_OFFSETS: self._add_offsets,
            PRODUCE: self._produce,
            COMMIT_OFFSETS: self._commit_offsets,
            END: self._add_offsets,
            PLAIN_OFFSETS: self._commit_plain_offsets,
        }
        return handlers[name](version, _Body(body), code_of)

    def _api_versions(self, version: int, body: "_Body", code_of: Any) -> bytes:
        known = b"".join(struct.pack(">hhh", key, *range_) for key, range_ in self.versions.items())
        return struct.pack(">hi", 0, len(self.versions)) + known

    def _metadata(self, version: int, body: "_Body", code_of: Any) -> bytes:
        brokers = [
            struct.pack(">i", node) + text("127.0.0.1") + struct.pack(">ih", port, -1)
            for node, port in self.ports.items()
        ]
        topics, wanted = [], [body.text() for _ in range(body.number())]
        for topic in wanted:
            partitions = [struct.pack(">hiiii", 0, n, self.leaders.get((topic, n), 1), 0, 0) for n in range(3)]
            topics.append(struct.pack(">h", 0) + text(topic) + b"\0" + array(partitions))
        return array(brokers) + struct.pack(">i", 1) + array(topics)

    def _find_coordinator(self, version: int, body: "_Body", code_of: Any) -> bytes:
        key = body.text()
        kind = body.raw[body.at]
        node = self.coordinators[kind]
        code = code_of(key, kind)
        return struct.pack(">ihhi", 0, code, -1, node) + text("127.0.0.1") + struct.pack(">i", self.ports[node])

    def _init_producer_id(self, version: int, body: "_Body", code_of: Any) -> bytes:
        return struct.pack(">ihqh", 0, code_of("", 0), 7, 1)

    def _add_offsets(self, version: int, body: "_Body", code_of: Any) -> bytes:
        return struct.pack(">ih", 0, code_of("", 0))

    def _add_partitions(self, version: int, body: "_Body", code_of: Any) -> bytes:
        body.text()
        body.at += 10
        topics = []
        for _ in range(body.number()):
            topic = body.text()
            partitions = [body.number() for _ in range(body.number())]
            topics.append(text(topic) + array([struct.pack(">ih", n, code_of(topic, n)) for n in partitions]))
        return struct.pack(">i", 0) + array(topics)

    def _produce(self, version: int, body: "_Body", code_of: Any) -> bytes:
        body.nullable()
        body.at += 6
        topics = []
        for _ in range(body.number()):
            topic, acks = body.text(), []
            for _ in range(body.number()):
                partition, size = body.number(), body.number()
                batch = body.raw[body.at : body.at + size]
                body.at += size
                code, (count,) = code_of(topic, partition), struct.unpack_from(">i", batch, 57)
                offset = self._offsets[topic, partition]
                if not code:
                    self._offsets[topic, partition] += count
                times = struct.pack(">q", -1) if version < 5 else struct.pack(">qq", -1, 0)
                reasons = array([struct.pack(">i", 0) + text("record")]) + text("why") if version >= 8 else b""
                acks.append(struct.pack(">ihq", partition, code, -1 if code else offset) + times + reasons)
            topics.append(text(topic) + array(acks))
        return array(topics) + struct.pack(">i", 0)

    def _commit_plain_offsets(self, version: int, body: "_Body", code_of: Any) -> bytes:
        assert body.text()
        body.number()
        body.text(), body.nullable()
        topics = []
        for _ in range(body.number()):
            topic, codes = body.text(), []
            for _ in range(body.number()):
                number = body.number()
                body.at += 12
                body.text()
                codes.append(struct.pack(">ih", number, code_of(topic, number)))
            topics.append(text(topic) + array(codes))
        assert body.at == len(body.raw)
        return struct.pack(">i", 0) + array(topics)

    def _commit_offsets(self, version: int, body: "_Body", code_of: Any) -> bytes:
        body.compact(), body.compact()
        body.at += 14
        body.compact(), body.compact()
        topics = []
        for _ in range(body.unsigned() - 1):
            topic, partitions = body.compact(), []
            for _ in range(body.unsigned() - 1):
                number = body.number()
                body.at += 12
                body.compact()
                body.at += 1
                partitions.append(struct.pack(">ih", number, code_of(topic, number)) + b"\0")
            body.at += 1
            name = topic.encode()
            topics.append(bytes([len(name) + 1]) + name + bytes([len(partitions) + 1]) + b"".join(partitions) + b"\0")
        return struct.pack(">i", 0) + bytes([len(topics) + 1]) + b"".join(topics) + b"\0"


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def array(items: list[bytes]) -> bytes:
    return struct.pack(">i", len(items)) + b"".join(items)


class _Body:
    """Reads the body of a request."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.at = 0

    def number(self) -> int:
        self.at += 4
        return struct.unpack_from(">i", self.raw, self.at - 4)[0]

    def text(self) -> str:
        (size,) = struct.unpack_from(">h", self.raw, self.at)
        self.at += 2 + size
        return self.raw[self.at - size : self.at].decode()

    def nullable(self) -> str | None:
        if self.raw[self.at : self.at + 2] == b"\xff\xff":
            self.at += 2
            return None
        return self.text()

    def unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self.raw[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def compact(self) -> str:
        size = max(0, self.unsigned() - 1)
        self.at += size
        return self.raw[self.at - size : self.at].decode()

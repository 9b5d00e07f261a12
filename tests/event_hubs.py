"""A proxy before a real Kafka that makes it answer as Azure Event Hubs' Standard tier does.

Its clients need TLS and the login `$ConnectionString`, which the broker checks. The proxy shows the versions of
requests that users of Event Hubs have logged, which lack those of transactions, and answers the question for a
coordinator of transactions with the error of the Standard tier.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator

VERSIONS = {
    0: (3, 7),
    1: (4, 6),
    2: (0, 7),
    3: (0, 5),
    8: (0, 8),
    9: (0, 5),
    10: (0, 4),
    11: (0, 7),
    12: (0, 4),
    13: (0, 4),
    14: (0, 5),
    15: (0, 5),
    16: (0, 4),
    17: (0, 1),
    18: (0, 2),
    19: (0, 6),
    20: (0, 2),
    22: (0, 1),
    23: (0, 0),
    32: (0, 2),
    36: (0, 1),
    37: (0, 1),
    42: (0, 0),
}
"""Lowest and highest version of each request that Event Hubs accepts."""

_API_VERSIONS, _FIND_COORDINATOR = 18, 10
_INVALID_REQUEST = 42
_REFUSAL = b"type code 1 is only supported in Premium or Dedicated sku."


class StandardTier:
    """Connections of one proxy. `refused` counts the questions for a coordinator of transactions."""

    def __init__(self, broker_port: int, *, known: bool) -> None:
        self.refused = 0
        self._broker_port = broker_port
        self._known = known

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
        asked: dict[int, tuple[int, int]] = {}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._requests(reader, to_broker, writer, asked))
                tasks.create_task(self._responses(there, writer, asked))
        except* (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            to_broker.close()

    async def _requests(self, reader, to_broker, to_client, asked) -> None:
        while True:
            frame = await _frame(reader)
            key, version, correlation = struct.unpack(">hhi", frame[:8])
            assert key in VERSIONS, f"request {key} is unknown to Event Hubs"
            assert VERSIONS[key][0] <= version <= VERSIONS[key][1], f"version {version} of request {key}"
            if key == _FIND_COORDINATOR and version >= 1 and frame[-1] == 1:
                self.refused += 1
                text = struct.pack(">h", len(_REFUSAL)) + _REFUSAL
                _send(
                    to_client,
                    struct.pack(">iih", correlation, 0, _INVALID_REQUEST) + text + struct.pack(">ihi", -1, 0, -1),
                )
                continue
            asked[correlation] = key, version
            _send(to_broker, frame)

    async def _responses(self, reader, to_client, asked) -> None:
        while True:
            frame = await _frame(reader)
            [correlation] = struct.unpack(">i", frame[:4])
            key, version = asked.pop(correlation, (-1, -1))
            if key == _API_VERSIONS:
                versions = VERSIONS | ({24: (0, 0), 25: (0, 0), 26: (0, 0), 28: (0, 2)} if self._known else {})
                rows = b"".join(struct.pack(">hhh", api, *span) for api, span in versions.items())
                frame = frame[:4] + struct.pack(">hi", 0, len(versions)) + rows + bytes(4 if version >= 1 else 0)
            _send(to_client, frame)


@contextlib.asynccontextmanager
async def standard_tier(
    broker_port: int, port: int, context: ssl.SSLContext, *, known: bool
) -> AsyncIterator[StandardTier]:
    """Serves at `port` with TLS. `known`: whether the tier knows the requests of transactions, and refuses them."""
    proxy = StandardTier(broker_port, known=known)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, ssl=context)
    try:
        yield proxy
    finally:
        server.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    [size] = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _send(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)) + frame)

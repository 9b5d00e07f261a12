"""The connections of a transactional sender: made by aiokafka's client, used without a task for each of their steps.

aiokafka reads a response by a task that waits for its length, then for its bytes, and starts a timer for each request.
Here a request is a future, a response is handled as soon as its last byte arrives, and a connection has one timer.
"""

import asyncio
import struct
from typing import Any, Literal

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

from runtime.kafka.commit_requests import CommitRequest, Response

Purpose = Literal["coordinate", "produce"]
"""What a connection is for. A broker answers the requests of a connection one by one, and a Produce takes long."""

_LENGTH = struct.Struct(">i")


class Connections:
    """The connections of one client, apart from those that the client uses itself.

    Relies on the client's `ready` and `_conns`, where the name of a group of connections may be any value.
    """

    def __init__(self, client: AIOKafkaClient) -> None:
        self._client = client
        self._open: dict[tuple[int, Purpose], _Connection] = {}

    async def ready(self, node: int, purpose: Purpose) -> bool:
        """Whether a node is connected, or can be."""
        found: bool = await self._client.ready(node, group=purpose)
        return found

    async def send(self, node: int, purpose: Purpose, request: CommitRequest) -> Response:
        """Sends a request and returns the response. Written before the first wait if the node is connected.

        Raises `KafkaError`.
        """
        place = node, purpose
        connection = self._client._conns.get(place)
        if connection is None or not connection.connected():
            if not await self.ready(node, purpose):
                raise NodeNotReadyError(f"node {node} is not connected")
            connection = self._client._conns[place]
        known = self._open.get(place)
        if known is None or known.connection is not connection:
            known = self._open[place] = _Connection(connection)
        return await known.write(request)

    def abort(self) -> None:
        """Closes connections with requests in flight. What is not sent yet never will be."""
        for connection in self._open.values():
            connection.abort()


class _Connection(asyncio.Protocol):
    """Takes the place of the protocol of a connection that is logged in and has no request in flight.

    Relies on these attributes and methods of the connection: `_client_id`, `_handle_frame`, `_next_correlation_id`,
    `_protocol`, `_read_task`, `_request_timeout`, `_requests`, `_versions`, `_writer` and `close`.
    """

    def __init__(self, connection: AIOKafkaConnection) -> None:
        self.connection = connection
        self._before: Any = connection._protocol
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._oldest: object = None
        connection._read_task.cancel()
        connection._writer.transport.set_protocol(self)

    def write(self, request: CommitRequest) -> asyncio.Future[Response]:
        """Writes a request. Returns its response, or `KafkaConnectionError` once the connection is closed."""
        connection = self.connection
        if connection._writer is None:
            raise KafkaConnectionError("the connection is closed")
        number = connection._next_correlation_id()
        frame = request.frame(connection._versions, number, connection._client_id)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        connection._requests.append((number, request, answer))
        connection._writer.write(frame)
        if self._timer is None:
            self._watch(loop)
        return answer

    def abort(self) -> None:
        if self.connection._requests and self.connection._writer is not None:
            self.connection._writer.transport.abort()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes the connection if its oldest request is not answered in time: within twice the time limit."""
        self._oldest = self.connection._requests[0]
        self._timer = loop.call_later(self.connection._request_timeout, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        requests = self.connection._requests
        if requests and requests[0] is self._oldest:
            self.connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
        elif requests:
            self._watch(loop)

    def data_received(self, data: bytes) -> None:
        received, connection, at = self._received, self.connection, 0
        received += data
        try:
            while len(received) >= at + _LENGTH.size and connection._writer is not None:
                begin = at + _LENGTH.size
                end = begin + _LENGTH.unpack_from(received, at)[0]
                if end > len(received):
                    break
                connection._handle_frame(bytes(received[begin:end]))
                at = end
        except Exception as error:  # whatever is wrong with a response: the next ones cannot be found
            connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
        del received[:at]

    def eof_received(self) -> bool:
        self.connection.close(reason=CloseReason.CONNECTION_BROKEN)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self.connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=exc)
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

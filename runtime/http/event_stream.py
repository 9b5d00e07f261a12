"""Server-sent events: a stream of messages to a browser or another client, which resumes it after an interruption."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from aiohttp import web

from runtime.hosting import Parameter
from schemas.wire import Message

EVENT_STREAM = "text/event-stream"
STREAM_HEADERS = {
    "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx holds back what it passes on, unless told not to
}

HEARTBEAT_S = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection, and a lost client shows."""
RETRY_MS = 1000
"""Milliseconds after which a client connects again."""

LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "header", {"type": "string"}, "Id of the last event that the client has; only later ones are sent"
)


class ServerSentEvent(NamedTuple):
    """An event of a stream.

    Arguments:
        id: the client sends it as `Last-Event-ID` to resume the stream behind it. Without line breaks.
        name: kind of the event.
        data: its content; bytes are JSON in one line.
    """

    id: str
    name: str
    data: Message | bytes

    def encode(self) -> bytes:
        """As on the wire. The content is JSON, hence one line."""
        data = self.data if isinstance(self.data, bytes) else self.data.to_json()
        return b"id: %s\nevent: %s\ndata: %s\n\n" % (self.id.encode(), self.name.encode(), data)


async def send_events(
    request: web.Request, events: AsyncGenerator[Sequence[ServerSentEvent], None]
) -> web.StreamResponse:
    """Sends events as they come, until there are no more or the client has gone. An empty sequence is a heartbeat."""
    response = web.StreamResponse(headers=STREAM_HEADERS)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        async with aclosing(events) as parts:
            async for part in parts:
                await response.write(b"".join(event.encode() for event in part) or b": waiting\n\n")
    except ConnectionError:
        pass  # the client has gone
    return response

"""Reads server-sent events."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple


class ReceivedEvent(NamedTuple):
    """An event of a stream."""

    id: str
    name: str
    data: str


async def read_events(lines: AsyncIterable[bytes]) -> AsyncIterator[ReceivedEvent]:
    """Yields the events of a stream, as the HTML standard defines it. Its comments and other fields are ignored.

    Arguments:
        lines: the lines of the body.
    """
    id_, name, data = "", "message", list[str]()
    async for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ReceivedEvent(id_, name, "\n".join(data))
            name, data = "message", []
        elif field == "id":
            id_ = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)

"""Each network fault has its effect at both ends, and ends when it is healed."""

import asyncio
import contextlib
from time import monotonic

import pytest

from ecosystem.embedded.ports import free_ports
from tests.chaos.toxiproxy import Toxiproxy, installed
from tests.go_modules import NotInstalled
from tests.workers import PATIENCE_S, until

SILENCE_S = 0.5


@pytest.fixture
async def toxiproxy(tmp_path):
    try:
        binary = installed()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    async with Toxiproxy(binary, tmp_path / "log") as toxiproxy:
        yield toxiproxy


class Echo:
    """An echo server, and the lines it received."""

    def __init__(self):
        self.heard = []

    async def serve(self, reader, writer):
        while line := await reader.readline():
            self.heard.append(line)
            writer.write(line)
        writer.close()


@pytest.fixture
async def line(toxiproxy):
    """An echo server, and a function that connects to it through a proxy named "line"."""
    echo, (port,) = Echo(), free_ports(1)
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    await toxiproxy.add("line", port)
    await toxiproxy.lead("line", server.sockets[0].getsockname()[1])
    ends = contextlib.ExitStack()

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ends.callback(writer.close)
        return reader, writer

    yield echo, connect
    ends.close()
    server.close()


async def said(connection, text):
    """What comes back."""
    reader, writer = connection
    writer.write(text)
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readline()


async def nothing_said(connection, text):
    """Whether nothing comes back for `SILENCE_S`."""
    try:
        async with asyncio.timeout(SILENCE_S):
            await said(connection, text)
    except TimeoutError:
        return True
    return False


async def test_cut_closes_connections_and_refuses_new_ones(toxiproxy, line):
    _, connect = line
    reader, _ = connection = await connect()
    assert await said(connection, b"one\n") == b"one\n"
    await toxiproxy.cut(["line"])
    assert await reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await connect()
    await toxiproxy.heal(["line"])
    assert await said(await connect(), b"two\n") == b"two\n"


@pytest.mark.parametrize(
    ("streams", "heard"),
    [(("upstream", "downstream"), [b"one\n"]), (("downstream",), [b"one\n", b"two\n"])],
    ids=["all swallowed", "answers swallowed"],
)
async def test_swallow_drops_bytes_without_an_error(toxiproxy, line, streams, heard):
    echo, connect = line
    connection = await connect()
    assert await said(connection, b"one\n") == b"one\n"
    await toxiproxy.swallow(["line"], *streams)
    assert await nothing_said(connection, b"two\n")
    await until(lambda: len(echo.heard) >= len(heard), "what goes through")
    assert echo.heard == heard
    await toxiproxy.heal(["line"])
    assert await said(await connect(), b"three\n") == b"three\n"


async def test_slow_delays_bytes_and_loses_none(toxiproxy, line):
    echo, connect = line
    connection = await connect()
    await toxiproxy.slow(["line"], latency_ms=200)
    reader, writer = connection
    start = monotonic()
    writer.write(b"one\ntwo\n")
    async with asyncio.timeout(PATIENCE_S):
        assert [await reader.readline(), await reader.readline()] == [b"one\n", b"two\n"]
    # The delay is 200 ms ± 200 ms: one answer proves nothing, so many are measured.
    for _ in range(10):
        writer.write(b"more\n")
        assert await reader.readline() == b"more\n"
    assert monotonic() - start > 0.5
    await until(lambda: len(echo.heard) == 12, "all heard")

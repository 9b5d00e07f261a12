"""Connections are accepted: many in one iteration of the event loop, without file descriptors, and at a stop."""

import asyncio
import errno
import logging
import os
import resource
import socket
import struct
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
import uvloop
from aiohttp import web

from runtime.http.acceptor import Acceptor
from runtime.http.runner import Runner

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@asynccontextmanager
async def serving():
    """A runner that answers `hello` on a free port: the runner, and its address."""

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = Runner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await runner.listen("127.0.0.1", 0)
        yield runner, runner.addresses[0]
    finally:
        await runner.cleanup()


@contextmanager
def connected(address, count):
    """Clients that are connected without an iteration of the event loop: they are in the accept queue."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address)) for _ in range(count)]


async def iterations_until(condition):
    """The iterations of the event loop until the condition holds."""
    iterations = 0
    async with asyncio.timeout(60):
        while not condition():
            iterations += 1
            await asyncio.sleep(0)
    return iterations


async def answer(client):
    """What the client gets, as text. Empty if the connection is closed without an answer."""
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(client, REQUEST)
        async with asyncio.timeout(30):
            return (await loop.sock_recv(client, 1000)).decode()
    except ConnectionError:
        return ""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_all_waiting_connections_are_accepted_in_one_iteration(run):
    async def accept():
        async with serving() as (runner, address):
            with connected(address, 200) as clients:
                iterations = await iterations_until(lambda: len(runner.server.connections) == 200)
                assert iterations < 10, "of a few ms to hundreds of ms each under load"
                assert "hello" in await answer(clients[-1])

    run(accept())


def test_an_iteration_accepts_a_limited_number(monkeypatch):
    async def accept():
        monkeypatch.setattr(Acceptor, "MAX_ACCEPTS", 20)
        async with serving() as (runner, address):
            with connected(address, 100):
                assert await iterations_until(lambda: len(runner.server.connections) == 100) >= 5

    uvloop.run(accept())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_connections_wait_without_a_free_file_descriptor(run, monkeypatch, caplog):
    monkeypatch.setattr(Acceptor, "PAUSE_S", 0.05)

    async def accept():
        async with serving() as (runner, address):
            with connected(address, 20) as clients:
                with files_used_up():
                    await iterations_until(lambda: said(caplog))
                    assert not runner.server.connections
                assert all("hello" in text for text in await asyncio.gather(*map(answer, clients)))

    run(accept())
    assert os.strerror(errno.EMFILE) in said(caplog)[0]


def said(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]


@contextmanager
def files_used_up():
    """No file can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in taken:
            os.close(file)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_client_that_is_gone_before_it_is_accepted_harms_nobody(run):
    async def accept():
        async with serving() as (_, address):
            with connected(address, 10) as gone, connected(address, 10) as clients:
                for client in gone[::2]:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
                for client in gone:
                    client.close()
                assert all("hello" in text for text in await asyncio.gather(*map(answer, clients)))

    run(accept())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_drain_answers_connections_of_the_accept_queue_and_refuses_others(run):
    async def drain():
        async with serving() as (runner, address):
            with connected(address, 300) as clients:
                draining = asyncio.create_task(runner.drain(5))
                answers = await asyncio.gather(*map(answer, clients))
                assert all("hello" in text for text in answers)
            await draining
            with pytest.raises(ConnectionError):
                socket.create_connection(address)

    run(drain())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_runner_that_ends_leaves_no_connection_open(run):
    async def end():
        with ExitStack() as stack:
            async with serving() as (_, address):
                clients = stack.enter_context(connected(address, 50))
                await asyncio.sleep(0)  # accepted, some are not opened yet
            assert await asyncio.gather(*map(answer, clients)) == [""] * 50

    run(end())


async def test_a_port_in_use_leaves_nothing_bound():
    async with serving() as (runner, address):
        with pytest.raises(OSError, match="in use"):
            await runner.listen("127.0.0.1", address[1])
        assert runner.addresses == [address]


async def test_a_connection_sends_small_answers_at_once():
    async with serving() as (runner, address):
        with connected(address, 1):
            await iterations_until(lambda: runner.server.connections)
            [connection] = runner.server.connections
            served = connection.transport.get_extra_info("socket")
            assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

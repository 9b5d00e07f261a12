"""Requests to URLs that others have chosen: where they may go, and how much a server may take."""

import asyncio
import socket
import threading
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from runtime.common.settings import Settings
from runtime.http import outbound
from runtime.http.networks import AddressPolicy
from runtime.http.outbound import OutboundClient
from webhook_service.settings import WebhookSettings

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.215.14", "172.15.255.255", "172.32.0.0", "192.0.1.1", "100.63.255.255", "100.128.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "169.253.255.255", "2606:4700::1111", "2a00:1450:4001::1",
    "::ffff:1.1.1.1", "2001:4860:4860::8888", "168.63.129.15",
]  # fmt: skip
REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:7f00:1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "fc00::1",
    "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
    "", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1:80", "[::1]",
]  # fmt: skip
"""Addresses of the registries, of metadata services, and texts that are no address."""


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address):
    assert AddressPolicy().permits(address)
    assert not AddressPolicy(public=False).permits(address)


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_of_the_own_network_are_refused(address):
    assert not AddressPolicy().permits(address)


@pytest.mark.parametrize(
    ("allowed", "address", "permitted"),
    [
        ("127.0.0.0/8", "127.0.0.1", True),
        ("127.0.0.0/8", "::ffff:127.0.0.1", True),
        ("127.0.0.0/8", "::1", False),
        ("10.1.0.0/16", "10.1.255.1", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fe80::1", False),
        ("::/0", "127.0.0.1", False),
    ],
)
def test_allowed_networks_are_permitted(allowed, address, permitted):
    assert AddressPolicy([ip_network(allowed)]).permits(address) == permitted


def test_networks_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "10.1.0.0/16, fd00::/8")
    assert [str(n) for n in Settings().of(WebhookSettings).webhook_allowed_networks] == ["10.1.0.0/16", "fd00::/8"]
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "10.1.0.1/16")
    with pytest.raises(ValueError, match=r"host bits set: write a network such as 10\.1\.0\.0/16"):
        Settings().of(WebhookSettings)


@asynccontextmanager
async def server(answer, host="127.0.0.1"):
    """A TCP server that answers each connection with bytes, in chunks of an iterable; and how many came."""
    came = []

    async def serve(reader, writer):
        came.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            for chunk in answer:
                if isinstance(chunk, float):
                    await asyncio.sleep(chunk)
                else:
                    writer.write(chunk)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    started = await asyncio.start_server(serve, host, 0)
    async with started:
        yield started.sockets[0].getsockname()[1], came


async def post(url, *, allowed=("127.0.0.0/8",), plain=False, timeout_s=5.0):
    client = OutboundClient(tuple(map(ip_network, allowed)), plain=plain, timeout_s=timeout_s)
    async with client.started():
        return await client.post(url, b"{}", {"Content-Type": "application/json"})


OK = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_a_name_or_spelling_of_a_refused_address_leads_nowhere(host):
    async with server([OK]) as (port, came):
        for allowed, plain in ((), True), (("10.0.0.0/8",), True), ((), False):
            outcome = await post(f"http://{host}:{port}/", allowed=allowed, plain=plain)
            assert (outcome.status, outcome.error) == (None, "address not permitted")
        assert came == []


async def test_plain_http_to_an_allowed_network_is_sent():
    async with server([OK]) as (port, came):
        assert (await post(f"http://127.0.0.1:{port}/")).status == 204
        assert came


async def test_a_name_that_resolves_to_something_else_the_next_time_is_checked_again(monkeypatch):
    """DNS rebinding: whatever the name was when it was looked at, the address that is connected to decides."""
    async with server([OK]) as (port, came):
        addresses = iter(["127.0.0.1", "127.0.0.2"])

        def look_up(host, port, **_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), port))]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(outbound, "_DNS_CACHE_S", 0)
        client = OutboundClient((ip_network("127.0.0.1/32"),), plain=True, timeout_s=5)
        async with client.started():
            assert (await client.post(f"http://rebound.example:{port}/", b"", {})).status == 204
            assert (await client.post(f"http://rebound.example:{port}/", b"", {})).error == "address not permitted"
        assert len(came) == 1


async def test_names_that_nobody_answers_for_delay_no_other(monkeypatch):
    """More of them than the event loop has threads for look-ups."""
    over, real = threading.Event(), socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if "dead" in host:
            over.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    client = OutboundClient((ip_network("127.0.0.0/8"), ip_network("::1/128")), plain=False, timeout_s=30)
    async with server([OK]) as (port, _), client.started():
        dead = [asyncio.create_task(client.post(f"http://dead{n}.example/", b"", {})) for n in range(50)]
        await asyncio.sleep(0)
        assert (await client.post(f"http://localhost:{port}/", b"", {})).status == 204
        assert not any(task.done() for task in dead)
        over.set()
        assert {(await task).error for task in dead} == {"name not resolved"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    async with server([OK]) as (other, followed):
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n"
        async with server([moved.encode()]) as (port, _):
            assert (await post(f"http://127.0.0.1:{port}/")).status == status
        assert followed == []


async def test_an_endless_answer_is_cut():
    chunk = b"x" * 8192
    endless = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", *([chunk] * 100_000)]
    async with server(endless) as (port, _):
        outcome = await post(f"http://127.0.0.1:{port}/", timeout_s=60)
    assert outcome.status == 200
    assert outcome.seconds < 30


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([30.0], "timeout"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *([b"x", 0.05] * 1000)], "timeout"),
        ([b"HTTP/1.1 200 OK\r\nX: ", *([b"x" * 1000] * 1000)], "ClientResponseError"),
        ([b"garbage\r\n\r\n"], "ClientResponseError"),
        ([], "ServerDisconnectedError"),
    ],
    ids=["silent", "a byte at a time", "endless headers", "no HTTP", "closed"],
)
async def test_a_server_that_misbehaves_fails_its_own_request(answer, error):
    async with server(answer) as (port, _):
        outcome = await post(f"http://127.0.0.1:{port}/", timeout_s=0.5)
    assert outcome.status is None
    assert outcome.error == error


async def test_other_failures_are_named_without_the_url():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = await post(f"http://127.0.0.1:{closed.getsockname()[1]}/secret-path")
    assert outcome.error == "connection refused"
    assert (await post("https://nobody.invalid/secret-path")).error == "name not resolved"
    async with server([b"HTTP/1.1 200 OK\r\n\r\n"]) as (port, _):
        task = post(f"https://127.0.0.1:{port}/secret-path", timeout_s=2)
        assert (await task).error in {"TLS failed", "timeout", "connection refused"}

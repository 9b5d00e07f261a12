"""Sends requests to URLs that others have chosen: to permitted addresses only, bounded in time and size."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from runtime.common.clock import elapsed_s
from runtime.http.networks import AddressPolicy, IpNetwork
from runtime.model.traces import TRACEPARENT, current_values
from runtime.side_effects.attempt import irrevocable

MAX_ANSWER_BYTES = 16 * 1024
"""Bytes that are read of an answer's body, and dropped. The connection of a longer one is closed."""
_KEEP_ALIVE_S = 4.0
"""Seconds for which an unused connection is kept. Servers close theirs after five or more; a request on a connection
that is being closed fails."""
_LOOKUPS = 64
"""Names that are looked up at a time, each once. More than subscriptions: one name that is not answered for keeps a
thread, and must not keep that of another one, nor those of the event loop."""
_DNS_CACHE_S = 10
"""Seconds for which a name is not looked up again. Whatever it resolves to, the address is checked at each connect."""


class AddressRefused(OSError):
    """The address must not be connected to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Arguments:
        status: of the answer; `None` without one.
        seconds: how long it took.
        error: why there is no answer, without the URL.
    """

    status: int | None
    seconds: float
    error: str | None = None


class _Resolver(AbstractResolver):
    """Looks names up by the system, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "outbound-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=found_family, proto=protocol, flags=flags
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class OutboundClient:
    """A client for URLs that others have chosen. Enter `started` before use.

    The address is checked when a socket is made for it, so that neither a name, nor another spelling of an address, nor
    a name that resolves to another address the next time, leads elsewhere. Redirects are not followed, proxies and
    cookies not used, answers not decompressed.

    Arguments:
        allowed: networks that may be connected to besides public addresses.
        plain: whether plain http may go to public addresses. To allowed networks it may.
        timeout_s: seconds for a request, from the look-up of its name to the end of the answer.
    """

    def __init__(self, allowed: tuple[IpNetwork, ...], *, plain: bool, timeout_s: float) -> None:
        self._policies = {"https": AddressPolicy(allowed), "http": AddressPolicy(allowed, public=plain)}
        self._timeout_s = timeout_s
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Opens the client, and closes its connections in the end."""
        # One session each: a connection pool must not serve a scheme whose policy refuses the address.
        resolver = _Resolver()
        self._sessions = {scheme: self._session(policy, resolver) for scheme, policy in self._policies.items()}
        try:
            yield
        finally:
            for session in self._sessions.values():
                await session.close()
            await resolver.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Sends a POST, with the ids of the current trace. Any failure is an outcome; only cancellation is raised."""
        began = elapsed_s()
        with irrevocable():  # the other side may have accepted it by the time it would be cancelled
            try:
                target = URL(url)
                async with self._sessions[target.scheme].post(
                    target, data=body, headers={**headers, **_trace_header()}, allow_redirects=False
                ) as response:
                    await _read_some(response)
                    return Outcome(response.status, elapsed_s() - began)
            except Exception as error:  # whatever a foreign server does: it fails its own request
                return Outcome(None, elapsed_s() - began, _reason(error))

    def _session(self, policy: AddressPolicy, resolver: AbstractResolver) -> aiohttp.ClientSession:
        def checked_socket(address: tuple[Any, ...]) -> socket.socket:
            family, kind, protocol, _, (host, *_) = address
            if not policy.permits(host):
                raise AddressRefused(f"{host} is not a permitted address")
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            limit=0,  # the scheduler of side effects limits requests
            keepalive_timeout=_KEEP_ALIVE_S,
            resolver=resolver,
            ttl_dns_cache=_DNS_CACHE_S,
            socket_factory=checked_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            auto_decompress=False,
            trust_env=False,
        )


def _trace_header() -> Mapping[str, str]:
    """The ids of the current trace, for the receiver to continue; nothing without tracing.

    Without `tracestate`, which may say what is not meant for strangers.
    """
    return {name: value for name, value in current_values().items() if name == TRACEPARENT}


async def _read_some(response: aiohttp.ClientResponse) -> None:
    """Reads a short body, so that the connection can be used again. Closes the connection of a longer one."""
    read = 0
    async for chunk in response.content.iter_any():
        read += len(chunk)
        if read > MAX_ANSWER_BYTES:
            response.close()
            return


def _reason(error: Exception) -> str:
    """Why a request failed, in words without URL and body."""
    if isinstance(error, asyncio.TimeoutError):
        return "timeout"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return "address not permitted"
        cause = cause.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name not resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "address not permitted" if "is not a permitted address" in str(error) else "connection refused"
    return type(error).__name__

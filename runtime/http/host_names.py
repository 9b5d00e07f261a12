"""Refuses requests to a worker on the loopback interface by a name that is not its own (DNS rebinding)."""

from collections.abc import Iterable
from ipaddress import ip_address

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from runtime.common.settings import Settings
from runtime.http.answers import HttpProblem

_KEPT = 1000
"""Values of `Host` that are remembered: each is taken apart once."""


class HostNames:
    """The names by which a worker on the loopback interface may be addressed.

    A page of a stranger can let its own name resolve to 127.0.0.1. Then a browser on this machine lets it read whatever
    listens here, as the same origin. The name in `Host` is the page's, and tells it apart.

    Arguments:
        others: names besides localhost and loopback addresses.

    >>> names = HostNames(["shop.example.com"])
    >>> [names.permits(host) for host in ("localhost:8080", "127.0.0.1", "[::1]:80", "Shop.example.com")]
    [True, True, True, True]
    >>> [names.permits(host) for host in ("evil.example:8080", "127.0.0.1.evil.example", "", "[::1")]
    [False, False, False, False]
    """

    def __init__(self, others: Iterable[str] = ()) -> None:
        self._others = frozenset(name.lower().rstrip(".") for name in others)
        self._known: dict[str, bool] = {}

    def permits(self, host: str) -> bool:
        """Whether a request with this `Host` is meant for this worker."""
        known = self._known.get(host)
        if known is None:
            known = self._permits(host)
            if len(self._known) < _KEPT:
                self._known[host] = known
        return known

    def _permits(self, host: str) -> bool:
        try:
            name = (URL(f"http://{host}").host or "").lower().rstrip(".")
        except ValueError:
            return False
        return name in self._others or name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_loopback(name: str) -> bool:
    """Whether a name is an address of the loopback interface."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def host_names(settings: Settings) -> HostNames | None:
    """The names of a worker on the loopback interface; `None` for others, which strangers reach anyway."""
    if settings.http_host != "localhost" and not is_loopback(settings.http_host):
        return None
    advertised = URL(settings.advertised_url).host if settings.advertised_url else None
    return HostNames([*settings.http_allowed_hosts, *([advertised] if advertised else [])])


def host_check(settings: Settings) -> tuple[Middleware, ...]:
    """The check as middleware; none where every name is answered."""
    names = host_names(settings)
    if names is None:
        return ()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")
        if host is not None and not names.permits(host):  # browsers always send it
            raise HttpProblem(
                403,
                "This worker listens on the loopback interface and was asked by another name. If the name is right, "
                "such as that of a proxy on this machine, add it to HTTP_ALLOWED_HOSTS.",
            )
        return await handler(request)

    return (check,)

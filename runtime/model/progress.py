"""How far each service of a consumer group has processed a partition. Pure.

A group commits one offset for each partition. The position of a service may be above or below this offset: a service
that joined the group late starts elsewhere. `ServiceProgress` names such services, in the offset's metadata.

>>> progress = ServiceProgress.parse("credit,orders>90")
>>> [progress.position(service, "fraud+orders", 70) for service in ("credit", "fraud", "orders", "email")]
[70, 70, 90, None]
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runtime.model.records import ALSO_CONSUMED_BY, CONSUMED_BY, Header

_ENTRY = re.compile(r"([^,=>\s]+)(?:([=>])([0-9]{1,19}))?")


def services_of(group: str) -> frozenset[str]:
    """The services of a composition, from the name of its group."""
    return frozenset(group.split("+"))


class ServiceProgress(NamedTuple):
    """What the metadata of a committed offset say about services.

    The services in the group's name have processed all records below the offset, and so have those in `joined`.

    Arguments:
        joined: services of the worker that committed which the group's name does not contain.
        ahead: services of the worker with the offset before which they have processed everything, above the committed
            one. Without effect once the committed offset has passed it.
        elsewhere: services that the worker does not run, with the offset before which they have processed everything.
    """

    joined: frozenset[str] = frozenset()
    ahead: Mapping[str, int] = {}
    elsewhere: Mapping[str, int] = {}

    @classmethod
    def parse(cls, text: str) -> "ServiceProgress":
        """Parses what `str` returns. Raises `ValueError`."""
        joined, ahead, elsewhere = set[str](), dict[str, int](), dict[str, int]()
        for entry in text.split(",") if text else ():
            found = _ENTRY.fullmatch(entry)
            if found is None:
                raise ValueError(f"{entry!r} is no progress of a service")
            service, sign, offset = found.groups()
            if sign is None:
                joined.add(service)
            else:
                (ahead if sign == ">" else elsewhere)[service] = int(offset)
        return cls(frozenset(joined), ahead, elsewhere)

    def __str__(self) -> str:
        entries = [
            *self.joined,
            *(f"{service}>{offset}" for service, offset in self.ahead.items()),
            *(f"{service}={offset}" for service, offset in self.elsewhere.items()),
        ]
        return ",".join(sorted(entries))

    def services(self, group: str) -> frozenset[str]:
        """The services whose positions are known, with this as metadata of the group."""
        return services_of(group) | self.joined | self.ahead.keys() | self.elsewhere.keys()

    def position(self, service: str, group: str, offset: int) -> int | None:
        """The offset before which the service has processed everything; `None` if it never read the partition.

        Arguments:
            service: its name.
            group: the group that committed.
            offset: the committed offset.
        """
        if service in self.elsewhere:
            return self.elsewhere[service]
        if service in self.joined or service in self.ahead or service in services_of(group):
            return max(offset, self.ahead.get(service, 0))
        return None


NOTHING_MORE = ServiceProgress()
"""The progress of a group whose members run the services of its name, all at the committed offset."""


class Marks:
    """Reads which services have processed a message in the batch that produced it, from its headers.

    Few values occur, so each is parsed once.
    """

    _MOST = 1000
    """Values that are remembered. Clients may write any."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes | None], frozenset[str]] = {}

    def services(self, headers: Iterable[Header]) -> frozenset[str]:
        """The services in `consumed-by` and `also-consumed-by`; none without these headers."""
        result: frozenset[str] = frozenset()
        for header in headers:
            if header[0] == CONSUMED_BY or header[0] == ALSO_CONSUMED_BY:
                result |= self._services(header)
        return result

    def _services(self, header: Header) -> frozenset[str]:
        found = self._known.get(header)
        if found is None:
            if len(self._known) >= self._MOST:
                self._known.clear()
            found = self._known[header] = services_of((header[1] or b"").decode(errors="replace"))
        return found


def marks_of(group: str, joined: Iterable[str]) -> tuple[Header, ...]:
    """The headers of a message that the group's services, and those that joined it, have processed."""
    also = "+".join(sorted(joined))
    mark: Header = CONSUMED_BY, group.encode()
    return (mark, (ALSO_CONSUMED_BY, also.encode())) if also else (mark,)

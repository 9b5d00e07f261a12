"""Optimistic locking by ETag and If-Match (RFC 9110, 8.8.3 and 13.1.1), for resources whose versions are numbers."""

import re
from collections.abc import Collection

from aiohttp import web

from runtime.hosting import Parameter, ResponseHeader
from runtime.http.validation import invalid_input

ExpectedVersions = Collection[int] | None
"""Versions known to the client, of which the resource must have one; `None` accepts any version."""

_TAG = r'(W/)?"[!#-~]*"'
_IF_MATCH = rf"^ *(\*|{_TAG}( *, *{_TAG})*) *$"


class StaleVersion(Exception):
    """The resource has another version than the client expects."""


def check_version(version: int, expected: ExpectedVersions) -> None:
    """Raises `StaleVersion` unless the version is among those expected."""
    if expected is not None and version not in expected:
        raise StaleVersion


def etag(version: int) -> dict[str, str]:
    """The header of a response that has this version."""
    return {"ETag": f'"{version}"'}


class VersionedResource:
    """The headers of a kind of resource, as documented and as read.

    Arguments:
        noun: names one to clients.
    """

    def __init__(self, noun: str) -> None:
        self._noun = noun
        self.version = ResponseHeader("ETag", f"Version of the {noun}")
        self.expected_version = Parameter(
            "If-Match",
            "header",
            {"type": "string", "pattern": _IF_MATCH, "examples": ['"3"']},
            f"ETag of the expected version; 412 if the {noun} has another one",
        )

    def expected_of(self, request: web.Request) -> ExpectedVersions:
        """Versions listed in If-Match; `None` without the header, or for `*`. Raises `HttpProblem` (400)."""
        header = request.headers.get(self.expected_version.name)
        if header is None or header.strip() == "*":
            return None
        if not re.fullmatch(_IF_MATCH, header):
            reason = f'must be the ETag of the {self._noun} in its quotes, such as "3"'
            raise invalid_input(self.expected_version.name, reason)
        # Weak and other ETags match no version.
        return {int(version) for version in re.findall(r'(?<!W/)"(0|[1-9][0-9]{0,18})"', header)}

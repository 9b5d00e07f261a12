"""Instants in requests: one strict form, for Python and for JSON Schema."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# Matches exactly the valid days, so that JSON Schema can say it too. Of these years every fourth is a leap year.
DAY = (
    r"(?:(?:19[7-9]|20[0-9])[0-9]-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)"
    r"|(?:0[13578]|1[02])-31)|(?:19(?:[79][26]|8[048])|20(?:[02468][048]|[13579][26]))-02-29)"
)
"""Pattern of a day from 1970 to 2099."""

_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"
_INSTANT = rf"{DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?{_ZONE}"

INSTANT: Mapping[str, Any] = {
    "type": "string",
    "pattern": f"^{_INSTANT}$",
    "examples": ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.250+01:00"],
}
"""JSON Schema of an instant."""


def parse_instant(text: str) -> datetime:
    """The instant, in UTC. Raises `ValueError` with what the text must be.

    >>> parse_instant("2026-01-31T13:00:00.250+01:00")
    datetime.datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=datetime.timezone.utc)
    """
    if not re.fullmatch(_INSTANT, text, re.ASCII):
        plus = "; a + in a URL is written %2B" if " " in text else ""
        raise ValueError(f"must be a time with its zone, 1970 to 2099, such as 2026-01-31T12:00:00Z{plus}")
    return datetime.fromisoformat(text).astimezone(UTC)

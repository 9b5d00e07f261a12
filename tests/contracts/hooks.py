"""Hooks that Schemathesis loads: changes of its cases before they are sent, with reasons."""

import unicodedata
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

_LONGEST_WAIT_MS = 20
ENDED = "ended"
"""Id of an order that has failed."""


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    if any(parameter.name == "timeout" for parameter in case.operation.query):
        _wait_briefly(case)
    if case.operation.path.startswith("/board/") and case.operation.path.endswith("/events"):
        _watch_briefly(case)
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if case.operation.path == "/v1/orders/{id}/events":
        _follow_to_the_end(case)
    if case.meta.is_negative_at(ParameterLocation.HEADER):
        # The coverage phase generates no valid If-Match for a pattern, but counts its own as valid.
        case.headers.pop("If-Match", None)
    if isinstance(case.body, dict):
        case.body = {name: _sound(value) for name, value in case.body.items()}


def _watch_briefly(case: Any) -> None:
    """Asks for one update of the board: its streams do not end by themselves."""
    updates = str(case.query.get("updates", "missing"))
    if updates == "missing" or (updates.isascii() and updates.isdigit() and int(updates[-9:]) > 1):
        case.query["updates"] = 1


def _follow_to_the_end(case: Any) -> None:
    """Asks for an order that has ended, or does not exist: the stream of any other would not end."""
    case.path_parameters["id"] = ENDED if len(str(case.path_parameters["id"])) % 2 else "nobody"


def _wait_briefly(case: Any) -> None:
    """Sets short timeouts instead of 10 or 60 seconds."""
    timeout = str(case.query.get("timeout", "missing"))
    if timeout == "missing" or (timeout.isascii() and timeout.isdigit() and int(timeout[-9:]) > _LONGEST_WAIT_MS):
        case.query["timeout"] = _LONGEST_WAIT_MS


def _sound(value: Any) -> Any:
    """What no schema can say: the Unicode form of a name, and a multiple of 0.0001 as people write it.

    Made by multiplying doubles, it comes as 0.30000000000000004.
    """
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float):
        rounded = round(value, 4)
        return rounded if abs(value - rounded) <= 1e-12 * max(1.0, abs(value)) else value
    return value

"""Asking a worker whether it is ready."""

import urllib.error
import urllib.request
from http import HTTPStatus

_TIMEOUT_S = 2.0


def is_ready(url: str) -> bool:
    """Whether the worker at base URL `url` says so; no if nobody answers."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=_TIMEOUT_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # also what urllib raises for 503
        return False

"""Asking a worker whether it is ready."""

import json
import urllib.error
import urllib.request
from http import HTTPStatus

_TIMEOUT_S = 2.0
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # http_proxy leads away from this machine


def is_ready(url: str) -> bool:
    """Whether the worker at base URL `url` says so; no if nobody answers."""
    try:
        with _DIRECTLY.open(f"{url}/readyz", timeout=_TIMEOUT_S) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:  # also what urllib raises for 503
        return False


def answering(url: str) -> str | None:
    """The base URL of the worker that answers at `url`, as it calls itself; `None` if no worker does."""
    try:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=_TIMEOUT_S) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            told = json.load(error)
        return str(told["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

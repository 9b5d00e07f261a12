"""Asks a worker whether it is ready."""

import json
import urllib.error
import urllib.request
from http import HTTPStatus

_TIMEOUT_S = 2.0
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # workers run on this machine


def is_ready(url: str) -> bool:
    """Whether the worker at base URL `url` is ready; `False` if it does not answer."""
    try:
        with _NO_PROXY.open(f"{url}/readyz", timeout=_TIMEOUT_S) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:  # includes the error that urllib raises for 503
        return False


def advertised_url(url: str) -> str | None:
    """Returns the advertised URL of the worker at `url`; `None` if no worker answers."""
    try:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=_TIMEOUT_S) as response:
                body = json.load(response)
        except urllib.error.HTTPError as error:
            body = json.load(error)
        return str(body["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

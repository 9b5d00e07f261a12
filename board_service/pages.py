"""The page and its files, which are part of the package. The page loads nothing else."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

from runtime.hosting import Host
from runtime.http.answers import HttpProblem

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content security policy: nothing inline, nothing of another origin, no text that becomes markup."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time by its ETag: a new version is seen at once
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the page."""

    body: bytes
    media_type: str
    etag: str


def _static_files() -> Mapping[str, StaticFile]:
    result = {}
    for entry in (files(__package__) / "static").iterdir():
        suffix = entry.name.rpartition(".")[2]
        if suffix in _TYPES:
            body = entry.read_bytes()
            result[entry.name] = StaticFile(body, _TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    return result


FILES = _static_files()
NAMES = sorted(FILES.keys() - {INDEX})


async def page(_host: Host, request: web.Request) -> web.Response:
    """Answers the page."""
    return _answer(request, FILES[INDEX])


async def static_file(_host: Host, request: web.Request) -> web.Response:
    """Answers a file of the page."""
    name = request.match_info["file"]
    if name not in NAMES:
        raise HttpProblem(404, "The board has no such file.")
    return _answer(request, FILES[name])


def _answer(request: web.Request, file: StaticFile) -> web.Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, headers={**headers, "Content-Type": file.media_type})

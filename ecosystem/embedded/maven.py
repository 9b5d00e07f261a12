"""Fetches single jars from Maven Central, each checked by its SHA-256."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

_TIMEOUT_S = 30


class JarUnavailable(Exception):
    """A jar cannot be fetched, or is not the pinned one. The text names jar and cause."""


def jar_name(coordinate: str) -> str:
    """Returns the file name of a Maven coordinate `group:artifact:version`."""
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def missing_jars(home: Path, jars: Mapping[str, str]) -> list[str]:
    """Returns those of `jars` (coordinate to SHA-256) that the folder does not have, or not as pinned."""
    return [coordinate for coordinate, digest in jars.items() if sha256(home / jar_name(coordinate)) != digest]


def sha256(path: Path) -> str | None:
    """Returns the checksum of a file in hexadecimal digits; `None` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def fetch_jar(coordinate: str, digest: str, staging: Path, home: Path) -> None:
    """Downloads a jar into `staging`, and moves it into `home` by a rename. Raises `JarUnavailable`."""
    from jgo.maven import MavenContext  # slow to import, and rarely needed

    context = MavenContext(repo_cache=staging, timeout=_TIMEOUT_S)
    try:
        fetched = Path(context.create_dependency(coordinate).artifact.resolve())
    except Exception as error:  # jgo passes on any exception of its HTTP library
        raise JarUnavailable(f"Could not fetch {coordinate} from Maven Central: {error}") from error
    if (found := sha256(fetched)) != digest:
        raise JarUnavailable(f"{coordinate} has the wrong SHA-256: {found}, expected {digest}")
    fetched.replace(home / jar_name(coordinate))

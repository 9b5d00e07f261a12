"""Fetches Kafka's jars from Maven Central once, into the user's cache, or beside the data if the user has none.

Every start compares the SHA-256 of each jar with the pinned one (0.1 s), so a truncated or changed cache repairs
itself. jgo downloads the jars; each is moved into place by a rename, so two processes may fetch at the same time.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ecosystem.embedded.kafka.errors import KafkaError
from ecosystem.embedded.kafka.jars import JARS, VERSION
from ecosystem.embedded.locks import exclusive_lock

_TIMEOUT_S = 30
_MAX_CONCURRENT = 8


def cache_dir(fallback: Path) -> Path:
    """Returns `FAUST_ORDERS_CACHE`, or `faust-orders` in the user's cache directory, or `fallback`.

    Users of services and containers often have no home, or one that they cannot write to.
    """
    *caches, last = _caches(fallback)
    return next((folder for folder in caches if _writable(folder)), last)


def _caches(fallback: Path) -> tuple[Path, ...]:
    if own := os.environ.get("FAUST_ORDERS_CACHE"):
        return (Path(own).absolute(),)
    try:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # neither HOME nor the user database names a home
        return (fallback.absolute(),)
    return (user.absolute() / "faust-orders", fallback.absolute())


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def jar_name(coordinate: str) -> str:
    """Returns the file name of a Maven coordinate `group:artifact:version`."""
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def ensure_jars(console: Console, fallback: Path) -> list[Path]:
    """Returns the class path of a broker; fetches missing jars into the cache directory, or into `fallback`.

    Raises `KafkaError` with cause and remedy.
    """
    name = f"kafka-{VERSION}"
    complete = (folder / name for folder in _caches(fallback) if not _missing(folder / name))  # may be read-only
    home = next(complete, None) or cache_dir(fallback) / name
    if _missing(home):
        try:
            with exclusive_lock(home / ".lock", wait=True):
                if missing := _missing(home):  # another process may have fetched them meanwhile
                    _fetch(missing, home, console)
        except OSError as error:
            raise KafkaError(
                f"Kafka's jars cannot be kept in {home}: {error.strerror}. Set FAUST_ORDERS_CACHE to another folder."
            ) from error
    return [home / jar_name(coordinate) for coordinate in JARS]


def _missing(home: Path) -> list[str]:
    return [c for c, digest in JARS.items() if _sha256(home / jar_name(c)) != digest]


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _fetch(coordinates: Sequence[str], home: Path, console: Console) -> None:
    console.print(
        f"Fetching Apache Kafka {VERSION} from Maven Central into {home}, once ({len(coordinates)} files)",
        soft_wrap=True,
    )
    with (
        tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as staging,
        ThreadPoolExecutor(_MAX_CONCURRENT) as pool,
    ):
        done = pool.map(lambda c: _fetch_one(c, Path(staging), home), coordinates)
        try:
            for _ in track(done, "kafka", len(coordinates), console=console, disable=not console.is_terminal):
                pass
        except KafkaError:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(coordinate: str, staging: Path, home: Path) -> None:
    from jgo.maven import MavenContext  # slow to import, and rarely needed

    context = MavenContext(repo_cache=staging, timeout=_TIMEOUT_S)
    try:
        fetched = Path(context.create_dependency(coordinate).artifact.resolve())
    except Exception as error:  # jgo passes on any exception of its HTTP library
        raise KafkaError(
            f"Could not fetch {coordinate} from Maven Central: {error}\n"
            "The first start needs network access. Otherwise set KAFKA_BOOTSTRAP_SERVERS to a running Kafka, or copy "
            f"{home} from another machine."
        ) from error
    if (found := _sha256(fetched)) != JARS[coordinate]:
        raise KafkaError(f"{coordinate} has the wrong SHA-256: {found}, expected {JARS[coordinate]}")
    fetched.replace(home / jar_name(coordinate))

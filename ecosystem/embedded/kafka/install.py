"""Fetches Kafka's jars from Maven Central, once, into the user's cache, or beside the data where there is none.

A jar is there when its SHA-256 is the pinned one. That is looked at on every start (0.1 s), so a cache that was cut
short or changed mends itself. jgo knows where Maven Central is and talks to it; what it brings is taken over by a
rename, so that two processes may do this at the same time.
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
from ecosystem.embedded.locks import exclusive

_TIMEOUT_S = 30
_AT_ONCE = 8


def cache_dir(spare: Path) -> Path:
    """`FAUST_ORDERS_CACHE`, or `faust-orders` in the user's cache directory, or `spare` where the user has none.

    Users without a home, or with one they cannot write to, are those of services and containers.
    """
    *caches, last = _caches(spare)
    return next((folder for folder in caches if _writable(folder)), last)


def _caches(spare: Path) -> tuple[Path, ...]:
    if own := os.environ.get("FAUST_ORDERS_CACHE"):
        return (Path(own).absolute(),)
    try:
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # neither HOME nor the list of users names a home
        return (spare.absolute(),)
    return (user.absolute() / "faust-orders", spare.absolute())


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def jar_name(coordinate: str) -> str:
    """`group:artifact:version` as Maven names the file."""
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def ensure_jars(console: Console, spare: Path) -> list[Path]:
    """The class path of a broker, fetched if need be, into `spare` for a user without a cache directory.

    Raises `KafkaError` when that is impossible, with what to do.
    """
    name = f"kafka-{VERSION}"
    whole = (folder / name for folder in _caches(spare) if not _missing(folder / name))  # also one we cannot write to
    home = next(whole, None) or cache_dir(spare) / name
    if _missing(home):
        try:
            with exclusive(home / ".lock", wait=True):
                if missing := _missing(home):  # another process may have fetched them while we waited
                    _fetch(missing, home, console)
        except OSError as error:
            raise KafkaError(
                f"Kafka's jars cannot be kept in {home}: {error.strerror}. Name another folder: FAUST_ORDERS_CACHE."
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
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        done = pool.map(lambda c: _fetch_one(c, Path(staging), home), coordinates)
        try:
            for _ in track(done, "kafka", len(coordinates), console=console, disable=not console.is_terminal):
                pass
        except KafkaError:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch_one(coordinate: str, staging: Path, home: Path) -> None:
    from jgo.maven import MavenContext  # slow to import, and seldom needed

    context = MavenContext(repo_cache=staging, timeout=_TIMEOUT_S)
    try:
        fetched = Path(context.create_dependency(coordinate).artifact.resolve())
    except Exception as error:  # jgo lets through whatever its HTTP library and it raise
        raise KafkaError(
            f"Could not fetch {coordinate} from Maven Central: {error}\n"
            "The first start needs the network. Or point KAFKA_BOOTSTRAP_SERVERS at a Kafka that runs already, or copy "
            f"{home} from a machine that has it."
        ) from error
    if (found := _sha256(fetched)) != JARS[coordinate]:
        raise KafkaError(f"{coordinate} is not the file it should be: SHA-256 {found}, expected {JARS[coordinate]}")
    fetched.replace(home / jar_name(coordinate))

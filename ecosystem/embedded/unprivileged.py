"""Starts a program that refuses to run as root, on programs and data that only root can reach.

PostgreSQL refuses user id 0, and `initdb` a user id without an entry in the user database, as in a container. Programs
and data may be below folders that only root may enter, such as `/root`. Two methods exist; each works in places where
the other does not (decision 26):

- `setpriv`: the program runs as `nobody` with the capability CAP_DAC_OVERRIDE. `initdb` checks its programs by
  access(2), which ignores that capability unless the securebit `no_setuid_fixup` is set.
- `unshare`: the program runs in a user namespace in which this user has another number. Files keep their owner.
"""

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_OVERFLOW_ID = 65_534  # the kernel's own, for systems without the user `nobody`
# Set again, because the kernel clears the parent-death signal when a process changes its user.
_DEATH_SIGNAL = "--pdeathsig=KILL"
_PROBE = "import os, sys; sys.exit(not all(os.access(p, os.R_OK | os.X_OK) for p in sys.argv[1:]) or not os.geteuid())"


class UnprivilegedStartError(Exception):
    """A program cannot be started as another user here. The text has causes and remedy."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A prefix for commands, and the user and group that must own the program's data."""

    prefix: tuple[str, ...]
    uid: int
    gid: int


def identity(program: Path, folder: Path) -> ProcessIdentity:
    """Returns how to start `program` on `folder`: as this user, or as another user who can reach both.

    Changes the owner of the folder and its content to that user. Raises `UnprivilegedStartError`.
    """
    if os.geteuid() != 0 and _has_user_entry(os.geteuid()):
        return ProcessIdentity((), os.geteuid(), os.getegid())
    causes = []
    for candidate in _candidates():
        if (cause := _obstacle(candidate, program, folder)) is None:
            return candidate
        causes.append(f"{candidate.prefix[0]}: {cause}")
    user = "as root" if os.geteuid() == 0 else f"as user {os.geteuid()}, who has no entry in the user database"
    raise UnprivilegedStartError(
        f"PostgreSQL does not run {user}, and {program} cannot be started as another user here "
        f"({'; '.join(causes)}). Start it as an ordinary user, or set CHECKIN_DATABASE_URL, PRODUCTS_DATABASE_URL, "
        "PRODUCT_LOG_DATABASE_URL and HISTORY_DATABASE_URL to a running PostgreSQL."
    )


def _has_user_entry(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def _candidates() -> Iterator[ProcessIdentity]:
    try:
        user, group = pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid
    except KeyError:
        user = group = _OVERFLOW_ID
    if os.geteuid() == 0:
        change = [f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
        yield ProcessIdentity(("setpriv", *change, *reach, _DEATH_SIGNAL, "--"), user, group)
    number = [f"--map-user={user}", f"--map-group={group}"]
    prefix = ("unshare", "--user", *number, "--", "setpriv", _DEATH_SIGNAL, "--")
    yield ProcessIdentity(prefix, os.geteuid(), os.getegid())


def _obstacle(candidate: ProcessIdentity, program: Path, folder: Path) -> str | None:
    """Says why this identity does not work; `None` if it can reach the program and the folder."""
    try:
        _change_owner(folder, candidate)
    except OSError as error:
        return f"cannot change the owner of {folder}: {error.strerror}"
    probe: Sequence[str | Path] = [*candidate.prefix, sys.executable, "-ISc", _PROBE, program, folder]
    try:
        done = subprocess.run(probe, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"{program} or {folder} cannot be reached"
    return None


def _change_owner(folder: Path, to: ProcessIdentity) -> None:
    """Changes the owner of a folder and its content, where it differs, as after a start by the other method."""
    inside = [Path(path) / name for path, folders, files in os.walk(folder) for name in (*folders, *files)]
    for path in (*inside, folder):
        found = path.lstat()
        if (found.st_uid, found.st_gid) != (to.uid, to.gid):
            os.chown(path, to.uid, to.gid, follow_symlinks=False)

"""What a check of `orders doctor` has found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`OK`: as it should be. `WARNING`: works, with a risk. `PROBLEM`: something does not work, or will not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Arguments:
        check: name of the check.
        level: how bad it is.
        what: what was found, with names and numbers.
        why: why it matters; empty if all is well.
        remedy: command or setting that mends it; empty if all is well.
    """

    check: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    """A finding that all is well."""
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, why: str, remedy: str) -> Finding:
    """A finding of a risk."""
    return Finding(check, Level.WARNING, what, why, remedy)


def problem(check: str, what: str, why: str, remedy: str) -> Finding:
    """A finding of something that does not work, or will not."""
    return Finding(check, Level.PROBLEM, what, why, remedy)

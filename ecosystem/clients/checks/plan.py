"""Changes of the required checks, as pure functions of the record."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from schemas.messages import MAX_CHECK_SETS, CheckSet, CheckType, RequiredChecks

Checks = tuple[CheckType, ...]
Edit = Callable[[Checks], Checks]


class TooManySets(Exception):
    """So many sets are to come that the record cannot hold another."""


class UnknownCheck(Exception):
    """The check to remove is in no set."""


def addition(check: CheckType) -> Edit:
    """Returns the edit that adds a check."""
    return lambda checks: checks if check in checks else (*checks, check)


def removal(check: CheckType) -> Edit:
    """Returns the edit that removes a check."""
    return lambda checks: tuple(other for other in checks if other != check)


def starting_with(record: RequiredChecks | None, initial: Checks, now: datetime) -> RequiredChecks:
    """Returns the record with a set in force: without one, the initial set from now on."""
    record = record or RequiredChecks(sets=())
    if record.at(now) is not None:
        return record
    return record.model_copy(update={"sets": _ordered([CheckSet(since=now, checks=initial), *record.sets])})


def changed(record: RequiredChecks, edit: Edit, at: datetime, now: datetime) -> RequiredChecks:
    """Applies an edit to the set in force at `at`, and to all later ones. Returns `record` if that changes nothing.

    Sets that are over stay, as the audit judges orders by them; the oldest go once there are too many. Raises
    `TooManySets`.
    """
    before = [s for s in record.sets if s.since < at]
    later = [s for s in record.sets if s.since > at]
    edited = [CheckSet(since=at, checks=edit(record.at(at) or ())), *(_edited(s, edit) for s in later)]
    sets = _merged(_ordered([*before, *edited]))
    if sets == _merged(_ordered(record.sets)):
        return record
    if sum(s.since > now for s in sets) >= MAX_CHECK_SETS:
        raise TooManySets(
            f"{MAX_CHECK_SETS - 1} sets are to come, more than that cannot be planned: change an existing one"
        )
    return RequiredChecks(version=record.version + 1, sets=sets[-MAX_CHECK_SETS:])


def require_known(record: RequiredChecks, check: CheckType) -> None:
    """Raises `UnknownCheck` if a check is in no set, past and future ones included."""
    known = sorted({c for s in record.sets for c in s.checks})
    if check not in known:
        raise UnknownCheck(f"{check} is not required, and never was. The checks are: {', '.join(known) or 'none'}")


def newest(records: Iterable[RequiredChecks | None]) -> RequiredChecks | None:
    """Returns the record of the highest version; of several, the first."""
    return max((r for r in records if r is not None), key=lambda r: r.version, default=None)


def _edited(one: CheckSet, edit: Edit) -> CheckSet:
    return one.model_copy(update={"checks": edit(one.checks)})


def _ordered(sets: Iterable[CheckSet]) -> tuple[CheckSet, ...]:
    return tuple(sorted(sets, key=lambda s: s.since))


def _merged(sets: Sequence[CheckSet]) -> tuple[CheckSet, ...]:
    """Leaves out sets with the checks of the one before."""
    return tuple(s for n, s in enumerate(sets) if n == 0 or set(s.checks) != set(sets[n - 1].checks))

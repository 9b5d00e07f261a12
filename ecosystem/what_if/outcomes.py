"""How an order ended: its state, and the kinds of its reasons."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from schemas.messages import OrderState

_NO_VERDICT = re.compile(r"(?P<check>[A-Z][A-Z0-9_]*): no verdict within (?P<seconds>[0-9.e+]+) s")
_CHECK = re.compile(r"(?P<check>[A-Z][A-Z0-9_]{0,63}): ")
_AMOUNT = re.compile(r" within [0-9.e+]+ s$")


class Outcome(NamedTuple):
    """State of an order, and why: checks that failed, checks without verdict, or why it was cancelled.

    >>> Outcome.of(OrderState.FAILED, ["FRAUD_CHECK: the limit is 2000.00"])
    Outcome(state=<OrderState.FAILED: 'FAILED'>, reasons=('FRAUD_CHECK',))
    >>> Outcome.of(OrderState.FAILED, ["FRAUD_CHECK: no verdict within 60 s"]).reasons
    ('FRAUD_CHECK missing',)
    >>> Outcome.of(OrderState.CANCELLED, ["not paid within 1800 s"]).reasons
    ('not paid',)
    """

    state: OrderState
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: OrderState, reasons: Iterable[str] | None) -> "Outcome":
        """Returns the outcome of an order with these reasons."""
        kinds = tuple(map(_kind, reasons or ()))
        return _shared.setdefault((state, kinds), cls(state, kinds))

    def agrees(self, other: "Outcome") -> bool:
        """Whether an order ended in the same way: of several checks that fail, any may be the first."""
        if self.state is not other.state:
            return False
        return self.reasons == other.reasons or not {*self.reasons}.isdisjoint(other.reasons)


_shared: dict[tuple[OrderState, tuple[str, ...]], Outcome] = {}
"""A million orders have few outcomes."""

OPEN = Outcome(OrderState.CREATED)


def missing_checks(reasons: Iterable[str]) -> dict[str, float]:
    """The checks that an order failed for want of, with the deadline in seconds."""
    found = filter(None, map(_NO_VERDICT.fullmatch, reasons))
    return {match["check"]: float(match["seconds"]) for match in found}


def _kind(reason: str) -> str:
    if match := _NO_VERDICT.fullmatch(reason):
        return f"{match['check']} missing"
    if match := _CHECK.match(reason):
        return match["check"]
    return _AMOUNT.sub("", reason)

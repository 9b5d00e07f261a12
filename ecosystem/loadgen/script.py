"""Draws the script of an order from a seed: its payments, and when somebody checks in for it. Pure."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto
from random import Random

from ecosystem.loadgen import sample
from schemas.api import NewOrder
from schemas.messages import OrderState
from schemas.money import digits


class CheckInAt(Enum):
    """When somebody checks in for an order."""

    POSTED = auto()
    """Right after it is posted, whatever its outcome."""
    DECIDED = auto()
    """After it is decided, whatever its outcome; the check-in for a failed order must be rejected."""
    VALIDATED = auto()
    """After it is validated; not if it fails."""

    def applies_to(self, state: OrderState) -> bool:
        """Whether somebody checks in for an order with this outcome."""
        return self is not CheckInAt.VALIDATED or state is not OrderState.FAILED


class CancelAt(Enum):
    """When the client cancels an order."""

    POSTED = auto()
    """Right after it is posted, in a race with its verdicts and payments."""
    DECIDED = auto()
    """After it is decided; a failed or shipped order must not be cancelled."""


@dataclass(frozen=True, slots=True)
class Instalment:
    """A payment of a share of the order's value, `after_s` seconds after it is posted; before it, if negative.

    The shares of an order add up to 1.
    """

    share: Decimal
    after_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """An order with its payments and check-in. `ghost`: somebody checks in for an order that does not exist, too."""

    order: NewOrder
    instalments: tuple[Instalment, ...] = ()
    check_in: CheckInAt | None = None
    ghost: bool = False
    currency: str = "EUR"
    cancel: CancelAt | None = None

    @property
    def amounts(self) -> tuple[Decimal, ...]:
        """Amount of each instalment, in whole units of the currency; the last is the rest of the value."""
        value = self.order.quantity * self.order.price
        unit = Decimal(1).scaleb(-digits(self.currency))
        amounts = [(value * part.share).quantize(unit) for part in self.instalments[:-1]]
        return (*amounts, value - sum(amounts, Decimal())) if self.instalments else ()


_PAID_AT_ONCE = (Instalment(Decimal(1), 0),)


def script(number: int, random: Random, currency: str = "EUR", cancelled: float = 0.0) -> Script:
    """Returns the script of order `number`, counted from 0. `cancelled` is the share of orders that are cancelled.

    The first order is shipped, the second fails and its check-in is rejected, the third has a ghost, so that all cases
    occur soon. The other scripts are random.
    """
    order, instalments, check_in = sample.order(random), _instalments(random), _check_in(random)
    ghost = random.randrange(50) == 0
    cancel = _cancel(random, cancelled) if cancelled else None  # without: the scripts of a seed stay as they were
    match number:
        case 0:
            return Script(sample.make_valid(order), _PAID_AT_ONCE, CheckInAt.VALIDATED, currency=currency)
        case 1:
            return Script(sample.make_invalid(order), _PAID_AT_ONCE, CheckInAt.DECIDED, currency=currency)
        case 2:
            return Script(order, _PAID_AT_ONCE, check_in, True, currency)
    return Script(order, instalments, check_in, ghost, currency, cancel)


def _instalments(random: Random) -> tuple[Instalment, ...]:
    late_s = random.uniform(1, 8)
    match random.randrange(20):
        case 0:
            return ()
        case 1 | 2:
            return (Instalment(Decimal("0.3"), 0), Instalment(Decimal("0.7"), late_s))
        case 3 | 4:
            return (Instalment(Decimal(1), -1),)
        case 5 | 6:
            return (Instalment(Decimal(1), late_s),)
        case 7:
            return (Instalment(Decimal("0.5"), -1), Instalment(Decimal("0.5"), late_s))
    return _PAID_AT_ONCE


def _check_in(random: Random) -> CheckInAt | None:
    match random.randrange(10):
        case 0 | 1:
            return None
        case 2:
            return CheckInAt.POSTED
        case 3 | 4:
            return CheckInAt.DECIDED
    return CheckInAt.VALIDATED


def _cancel(random: Random, share: float) -> CancelAt | None:
    return random.choice(list(CancelAt)) if random.random() < share else None

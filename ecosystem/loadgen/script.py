"""What is to happen around an order: how it is paid, and when somebody checks in for it. Pure, from a seed."""

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

    ONCE = auto()
    """Right behind the order, whatever will become of it."""
    DECIDED = auto()
    """When it is decided, whatever has become of it: one that failed is to be told so."""
    VALIDATED = auto()
    """When it is validated, if it is."""

    def follows(self, state: OrderState) -> bool:
        """Whether somebody checks in for an order that was decided like that."""
        return self is not CheckInAt.VALIDATED or state is not OrderState.FAILED


@dataclass(frozen=True, slots=True)
class Instalment:
    """A part of what an order is worth, so many seconds after it was posted; before it was, if below 0.

    The shares of an order that is paid at all come to 1.
    """

    share: Decimal
    after_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """An order and what goes with it. `ghost`: somebody checks in for an order that does not exist, too."""

    order: NewOrder
    instalments: tuple[Instalment, ...] = ()
    check_in: CheckInAt | None = None
    ghost: bool = False
    currency: str = "EUR"

    @property
    def amounts(self) -> tuple[Decimal, ...]:
        """What each instalment comes to: in whole units of the currency, the last one what is left of the value."""
        value = self.order.quantity * self.order.price
        unit = Decimal(1).scaleb(-digits(self.currency))
        amounts = [(value * part.share).quantize(unit) for part in self.instalments[:-1]]
        return (*amounts, value - sum(amounts, Decimal())) if self.instalments else ()


_WHOLE = (Instalment(Decimal(1), 0),)


def script(number: int, random: Random, currency: str = "EUR") -> Script:
    """The script of the order of a number, from 0.

    The first one goes all the way, the second fails and is checked in for in vain, with the third comes a ghost: so
    that whoever looks on sees all of it soon. From then on chance decides.
    """
    order, instalments, check_in = sample.order(random), _instalments(random), _check_in(random)
    ghost = random.randrange(50) == 0
    match number:
        case 0:
            return Script(sample.sound(order), _WHOLE, CheckInAt.VALIDATED, currency=currency)
        case 1:
            return Script(sample.doomed(order), _WHOLE, CheckInAt.DECIDED, currency=currency)
        case 2:
            return Script(order, _WHOLE, check_in, True, currency)
    return Script(order, instalments, check_in, ghost, currency)


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
    return _WHOLE


def _check_in(random: Random) -> CheckInAt | None:
    match random.randrange(10):
        case 0 | 1:
            return None
        case 2:
            return CheckInAt.ONCE
        case 3 | 4:
            return CheckInAt.DECIDED
    return CheckInAt.VALIDATED

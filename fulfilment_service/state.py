"""What the fulfilment service holds: one row an order, for what has happened and what it is still waiting for."""

from decimal import Decimal

from pydantic import Field

from runtime.memory import Seen
from runtime.service import Table
from schemas.messages import CheckinRejected, HomeCheckin, OrderState
from schemas.wire import Message, Money


class Progress(Message):
    """How far an order has come, with its `value` to the last digit.

    `paid` maps payment ids to amounts: a payment that is seen again counts once. `check_ins` are those that nobody has
    answered for yet: of an order that is still unknown, or not decided. `rejected` is what was told of others, where it
    may have to be told again.
    """

    state: OrderState | None = None
    value: Decimal | None = None
    paid: dict[str, Money] = Field(default_factory=dict)
    checked_in: bool = False
    check_ins: tuple[HomeCheckin, ...] = ()
    rejected: tuple[CheckinRejected, ...] = ()
    fulfilled: bool = False


PROGRESS = Table("fulfilment-progress", Progress)
SEEN = Seen("fulfilment-seen-check-ins")

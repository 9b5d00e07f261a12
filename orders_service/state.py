"""State of the orders service: one row per order, kept for ever."""

from runtime.model.service import Table
from schemas.api import OrderOutcome, Verdict
from schemas.messages import CheckType, Order
from schemas.wire import Message


class OrderView(Message):
    """Everything known about one order.

    `order` holds its current state; `None` while only verdicts have arrived. `late` counts the verdicts without effect:
    a repeated check, or any verdict after the decision.
    """

    order: Order | None = None
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    late: int = 0

    @property
    def decided(self) -> bool:
        return self.order is not None and self.order.state.decided

    def has(self, check: CheckType) -> bool:
        """Whether this check has given a verdict."""
        return any([v.check_type == check for v in self.verdicts])

    def outcome(self) -> OrderOutcome:
        """Converts the row into the HTTP body. Raises `LookupError` while only verdicts have arrived."""
        if self.order is None:
            raise LookupError("only verdicts have arrived, not their order")
        return OrderOutcome(
            id=self.order.id,
            state=self.order.state,
            order=self.order,
            verdicts=self.verdicts,
            reasons=self.reasons,
            late=self.late,
        )


ORDERS_VIEW = Table("orders-view", OrderView)

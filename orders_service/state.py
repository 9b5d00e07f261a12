"""What the orders service holds: one row an order, from its first verdict or message on, for ever."""

from runtime.model.service import Table
from schemas.api import OrderOutcome, Verdict
from schemas.messages import CheckType, Order
from schemas.wire import Message


class OrderView(Message):
    """All that is known of one order.

    `order` carries the state it has come to; it is missing while only verdicts have arrived. `late` counts the verdicts
    that changed nothing: a second one of the same check, or any once the order was decided.
    """

    order: Order | None = None
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    late: int = 0

    @property
    def decided(self) -> bool:
        return self.order is not None and self.order.state.decided

    def has(self, check: CheckType) -> bool:
        """Whether this check has spoken."""
        return any([v.check_type == check for v in self.verdicts])

    def outcome(self) -> OrderOutcome:
        """What a client is told. Raises `LookupError` while the order itself has not arrived."""
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

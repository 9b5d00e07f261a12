"""State of the orders service: one row per order, kept for ever, and the required checks of each partition."""

from runtime.model.service import Table
from schemas.api import OrderOutcome, Verdict
from schemas.messages import FIRST_ATTEMPT, CheckType, Order, OrderValidation, RequiredChecks
from schemas.wire import Message


class OrderView(Message):
    """Everything known about one order.

    `order` holds its current state; `None` while only verdicts have arrived. `required` are the checks that decide it:
    those in force when it was first seen, without those removed since. Rows of earlier versions do not have it. `late`
    counts the verdicts without effect: a repeated check, or any verdict after the decision. `ahead` are verdicts of a
    later attempt to decide the order that arrived before it.
    """

    order: Order | None = None
    verdicts: tuple[Verdict, ...] = ()
    reasons: tuple[str, ...] = ()
    required: tuple[CheckType, ...] | None = None
    late: int = 0
    ahead: tuple[OrderValidation, ...] = ()

    @property
    def attempt(self) -> int:
        """Number of the attempt to decide the order, from 1; of the first one while only verdicts have arrived."""
        return FIRST_ATTEMPT if self.order is None else self.order.attempt_number

    @property
    def decided(self) -> bool:
        return self.order is not None and self.order.state.decided

    def has(self, check: CheckType) -> bool:
        """Whether this check has given a verdict."""
        return any([v.check_type == check for v in self.verdicts])

    def missing(self, required: tuple[CheckType, ...]) -> tuple[CheckType, ...]:
        """The checks that have not given a verdict."""
        return tuple(check for check in required if not self.has(check))

    def outcome(self) -> OrderOutcome:
        """Converts the row into the HTTP body. Raises `LookupError` while only verdicts have arrived."""
        if self.order is None:
            raise LookupError("only verdicts have arrived, not their order")
        required = self.required or ()
        return OrderOutcome(
            id=self.order.id,
            state=self.order.state,
            order=self.order,
            verdicts=self.verdicts,
            reasons=self.reasons,
            required=required,
            missing=self.missing(required),
            late=self.late,
        )


ORDERS_VIEW = Table("orders-view", OrderView)
CHECKS = Table("orders-required-checks", RequiredChecks)
"""One row per partition, under `REQUIRED`."""
REQUIRED = "required-checks"

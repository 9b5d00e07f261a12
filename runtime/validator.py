"""Declares a validator: a service that gives the verdict of one check on each order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from runtime.hosting import ServiceDefinition
from runtime.model.service import Context, Expiring, Input, Service, Start, Table
from runtime.state.ttl_table import ExpiringRow, TtlTable
from schemas.messages import CheckType, Order, OrderState, OrderValidation, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, ORDERS, Topic, repartition

PASSED, FAILED = VERDICTS = "passed", "failed"
"""Events of every validator: verdicts sent, repeated ones included."""


class VerdictRow(ExpiringRow):
    """Past verdict on an order: PASS, or FAIL for the reason `refusal`."""

    refusal: str | None = None


def verdict_key(order: Order) -> str:
    """Key of the verdict on an order: its id, with the attempt from the second on."""
    return order.attempt_key(order.id)


Judge = Callable[[Order, Context], "str | VerdictRow | None"]


def validator(
    name: str,
    check: CheckType,
    *,
    judge: Judge,
    by: tuple[str, Callable[[Order], str]] | None = None,
    precheck: Callable[[Order], str | None] | None = None,
    on_change: Callable[[Order, Context], None] | None = None,
    verdicts: TtlTable[Any] | None = None,
    on_expired: Callable[[str, Any, Context], None] | None = None,
    inputs: tuple[Input[Any], ...] = (),
    tables: tuple[Table[Any], ...] = (),
    start: Start = Start.NOW,
    events: tuple[str, ...] = (),
) -> ServiceDefinition:
    """Returns the definition of a validator.

    `judge` is called once per new order, and once more for each later attempt to decide it (`Order.attempt`). An order
    that is replayed within the TTL of `verdicts` gets its first verdict.

    Arguments:
        name: name of the service; its tables begin with it.
        check: name of the check, such as `QUOTA_CHECK`.
        judge: the rule: returns the reason why the order fails, or `None` if it passes. May read and write `tables`.
            If the rows of `verdicts` have fields of their own, it returns the row.
        by: name and function of a key, if the rows that `judge` uses are kept under another key than the order id:
            orders are repartitioned by it.
        precheck: a rule on the order alone, before repartitioning. Its verdicts are not stored.
        on_change: called with each order that has failed, was shipped or cancelled, in the partition of `judge`. The
            change of an order may arrive before the order, and repeatedly.
        verdicts: past verdicts by `verdict_key`, rows of `VerdictRow` or a subclass. Default: table `<name>-judged`.
        on_expired: called with key and row of each past verdict that expires.
        inputs: further topics with their processors.
        tables: state besides past verdicts.
        start: which orders a validator judges that is added to a running system: those from now on, or all.
        events: what `judge` and the other processors count, besides verdicts.

    Raises `ValueError` for a check or a table that is not named as it must be.

    At most two orders a customer:

    >>> from runtime.testing import TopologyTestDriver
    >>> from schemas.wire import Message
    >>> class Customer(Message):
    ...     orders: int = 0
    >>> CUSTOMERS = Table("quota-customers", Customer)
    >>> def judge(order: Order, ctx: Context) -> str | None:
    ...     key = str(order.customer_id)
    ...     customer = ctx.get(CUSTOMERS, key) or Customer()
    ...     if customer.orders == 2:
    ...         return "the customer has two orders"
    ...     ctx.put(CUSTOMERS, key, Customer(orders=customer.orders + 1))
    ...     return None
    >>> quota = validator(
    ...     "quota", "QUOTA_CHECK", judge=judge, by=("customer", lambda o: str(o.customer_id)), tables=(CUSTOMERS,)
    ... )

    The second order is replayed, and gets its first verdict again:

    >>> driver = TopologyTestDriver(quota.service, partitions=1)
    >>> content = {"customer_id": 7, "product": "mug", "quantity": 1, "price": 12, "created_at": driver.now}
    >>> driver.send(ORDERS, *[Order(id=order_id, **content) for order_id in ("o-1", "o-2", "o-2", "o-3")])
    >>> for verdict in driver.values(ORDER_VALIDATIONS):
    ...     print(verdict.order_id, verdict.check_type, verdict.validation_result, verdict.reason)
    o-1 QUOTA_CHECK PASS None
    o-2 QUOTA_CHECK PASS None
    o-2 QUOTA_CHECK PASS None
    o-3 QUOTA_CHECK FAIL the customer has two orders
    """
    try:
        TypeAdapter(CheckType).validate_python(check)
    except ValidationError:
        raise ValueError(
            f"check {check!r} of validator {name!r} must begin with A to Z and have up to 64 of A to Z, 0 to 9 and _"
        ) from None
    verdicts = verdicts or TtlTable(f"{name}-judged", VerdictRow)
    repartitioned = repartition(name, ORDERS, *by) if by else None
    passed = OrderValidation(order_id="none", check_type=check, validation_result=ValidationResult.PASS)
    processors = _Processors(check, judge, precheck, on_change, verdicts, repartitioned, passed)
    keyed = (Input(repartitioned, processors.on_repartitioned),) if repartitioned else ()
    return ServiceDefinition(
        Service(
            name,
            inputs=(Input(ORDERS, processors.on_order, start=start), *keyed, *inputs),
            outputs=(*((repartitioned,) if repartitioned else ()), ORDER_VALIDATIONS),
            tables=tables,
            ttl_tables=(Expiring(verdicts, on_expired),),
            events=(*VERDICTS, *events),
        ),
        check=check,
    )


@dataclass(frozen=True, slots=True)
class _Processors:
    check: CheckType
    judge: Judge
    precheck: Callable[[Order], str | None] | None
    on_change: Callable[[Order, Context], None] | None
    verdicts: TtlTable[Any]
    repartitioned: Topic[Order] | None
    passed: OrderValidation
    """The verdict PASS, on no order yet."""

    def on_order(self, order: Order, ctx: Context) -> None:
        """Prechecks a new order. Repartitions it if it passes, and changes that the validator processes."""
        if order.state is OrderState.CREATED:
            failure = self.precheck(order) if self.precheck else None
            if failure is not None:
                self._send_verdict(order, failure, ctx)
                return
        elif order.state is OrderState.VALIDATED or self.on_change is None:
            return
        if self.repartitioned is not None:
            ctx.send(self.repartitioned, order)
        else:
            self.on_repartitioned(order, ctx)

    def on_repartitioned(self, order: Order, ctx: Context) -> None:
        """Gives the verdict on a new order, or processes the change of an order."""
        if order.state is OrderState.CREATED:
            past = self.verdicts.get_or_add(ctx, verdict_key(order), lambda: self._row(self.judge(order, ctx)))
            self._send_verdict(order, past.refusal, ctx)
        elif self.on_change is not None:
            self.on_change(order, ctx)

    def _row(self, judged: str | VerdictRow | None) -> VerdictRow:
        return judged if isinstance(judged, VerdictRow) else self.verdicts.rows.model(refusal=judged)

    def _send_verdict(self, order: Order, failure: str | None, ctx: Context) -> None:
        about = {"order_id": order.id, "attempt": order.attempt}
        if failure is None:  # a copy costs half of a validated message
            ctx.count(PASSED)
            ctx.send(ORDER_VALIDATIONS, self.passed.model_copy(update=about))
        else:
            verdict = OrderValidation(
                check_type=self.check, validation_result=ValidationResult.FAIL, reason=failure, **about
            )
            ctx.count(FAILED)
            ctx.send(ORDER_VALIDATIONS, verdict)

"""Explains orders: reads what is known about an order and its surroundings, and applies the rules of the checks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from history_service import evidence, explain
from history_service.evidence import GivenVerdict
from history_service.settings import HistorySettings
from schemas.history import ExplainedVerdict, OrderExplanation
from schemas.messages import FIRST_ATTEMPT, BuiltInCheck, CheckType, OrderState, ValidationResult


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the verdicts on orders.

    Arguments:
        gap: inactivity that ends a session.
        limit: total of a session at which orders fail.
        currency: of orders.
        required: checks that decide orders, where the topic `required-checks` says nothing.
    """

    gap: timedelta
    limit: Decimal
    currency: str
    required: tuple[CheckType, ...]

    @classmethod
    def of(cls, settings: HistorySettings) -> "Explainer":
        """An explainer under the settings of a worker."""
        gap, limit = timedelta(seconds=settings.fraud_session_gap_s), Decimal(str(settings.fraud_limit))
        return cls(gap, limit, settings.currency, tuple(dict.fromkeys(settings.required_checks)))

    async def explain(
        self, connection: AsyncConnection, order_id: str, now: datetime, lag_s: float | None
    ) -> OrderExplanation | None:
        """Explains an order; `None` if its records are not stored."""
        order = await evidence.read_order(connection, order_id)
        if order is None:
            return None
        posted_at, decided_at, given = await _read_latest_attempt(connection, order, now)
        records = await evidence.read_required(connection, decided_at)
        required = explain.required_checks(records, posted_at, decided_at, self.required)
        verdicts = [
            await self._explained(connection, order, one, one.verdict.check_type in required.checks)
            for one in given.values()
        ]
        in_time = {check for check, one in given.items() if one.at.produced_at <= decided_at}
        missing = tuple(check for check in required.checks if check not in in_time)
        state = OrderState(order.state)
        return OrderExplanation(
            id=order_id,
            state=state,
            reasons=tuple(order.reasons or ()),
            explanation=_summary(state, tuple(order.reasons or ()), verdicts, missing),
            verdicts=tuple(verdicts),
            required=required.checks,
            missing=missing,
            required_from="required-checks" if required.known else "REQUIRED_CHECKS",
            lag_seconds=lag_s,
        )

    async def _explained(
        self, connection: AsyncConnection, order: Any, given: GivenVerdict, required: bool
    ) -> ExplainedVerdict:
        verdict, at = given.verdict, given.at
        passed = verdict.validation_result is ValidationResult.PASS
        numbers: dict[str, Any] = {}
        words = "No rule is known here; the reason is that of the check."
        match verdict.check_type:
            case BuiltInCheck.FRAUD_CHECK:
                counted = await evidence.read_counted(connection, order, self.gap)
                later = at if order.attempt > FIRST_ATTEMPT else None
                session = explain.session_numbers(order.id, counted, self.gap, self.limit, later)
                if session is not None:
                    words = explain.session_words(session, self.currency)
                    numbers = {"session": session, "agrees": passed == (session.total < self.limit)}
            case BuiltInCheck.INVENTORY_CHECK:
                level = await evidence.read_level(connection, order.product, at.produced_at)
                held = await evidence.read_held(connection, order, at, level.at if level else None)
                stock = explain.stock_numbers(order.quantity, level, held, at)
                words = explain.stock_words(stock, order.product)
                numbers = {"stock": stock, "agrees": passed == explain.stock_suffices(stock)}
            case BuiltInCheck.ORDER_DETAILS_CHECK:
                product = await evidence.read_product(connection, order.product, at.produced_at)
                words = explain.product_words(order.product, product, order.price, self.currency)
                numbers = {"product": product}
        return ExplainedVerdict(
            check_type=verdict.check_type,
            validation_result=verdict.validation_result,
            reason=verdict.reason,
            at=at.produced_at.astimezone(UTC),
            required=required,
            explanation=words,
            **numbers,
        )


async def _read_latest_attempt(
    connection: AsyncConnection, order: Any, now: datetime
) -> tuple[datetime, datetime, Mapping[CheckType, GivenVerdict]]:
    """When the latest attempt to decide an order began and ended, `now` if it has not, and the verdicts of it alone."""
    if order.attempt == FIRST_ATTEMPT:
        posted_at = order.posted_at or order.updated_at
        verdicts = (await evidence.read_verdicts(connection, {order.id: posted_at})).get(order.id, {})
        return posted_at, order.validated_at or order.failed_at or order.cancelled_at or now, verdicts
    attempt = (await evidence.read_attempts(connection, [order.id])).get(order.id, {}).get(order.attempt)
    if attempt is None:
        return order.updated_at, now, {}
    decided_at = attempt.first(OrderState.VALIDATED, OrderState.FAILED, OrderState.CANCELLED)
    return attempt.first(OrderState.CREATED) or order.updated_at, decided_at or now, attempt.verdicts


def _summary(
    state: OrderState, reasons: tuple[str, ...], verdicts: list[ExplainedVerdict], missing: tuple[CheckType, ...]
) -> str:
    failed = [v.check_type for v in verdicts if v.required and v.validation_result is not ValidationResult.PASS]
    match state:
        case OrderState.FAILED if failed:
            return f"The order failed: {', '.join(failed)} did not pass."
        case OrderState.FAILED:
            return f"The order failed: {'; '.join(reasons) or 'no verdict says why'}."
        case OrderState.CANCELLED:
            return f"The order was cancelled: {'; '.join(reasons) or 'no reason was given'}."
        case OrderState.CREATED:
            waits = f"waits for {', '.join(missing)}" if missing else "has all its verdicts and is decided any moment"
            return f"The order {waits}."
        case _:
            return f"The order passed all checks that it required, and is {state}."

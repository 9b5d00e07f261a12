"""Builds the verdicts of all validators."""

from schemas.messages import CheckType, OrderValidation, ValidationResult


def verdict(order_id: str, check: CheckType, failure: str | None) -> OrderValidation:
    """Returns a FAIL with the reason `failure`, or a PASS if it is `None`."""
    return OrderValidation(
        order_id=order_id,
        check_type=check,
        validation_result=ValidationResult.PASS if failure is None else ValidationResult.FAIL,
        reason=failure,
    )

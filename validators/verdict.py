"""How every validator says what it found."""

from schemas.messages import CheckType, OrderValidation, ValidationResult


def verdict(order_id: str, check: CheckType, refusal: str | None) -> OrderValidation:
    """A FAIL for the reason given, or a PASS when there is none."""
    return OrderValidation(
        order_id=order_id,
        check_type=check,
        validation_result=ValidationResult.PASS if refusal is None else ValidationResult.FAIL,
        reason=refusal,
    )

"""Sample messages."""

from datetime import UTC, datetime
from typing import Any

from schemas.messages import BuiltInCheck, CheckType, Customer, HomeCheckin, Order, OrderValidation, ValidationResult

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)

FRAUD, INVENTORY, DETAILS = BuiltInCheck.FRAUD_CHECK, BuiltInCheck.INVENTORY_CHECK, BuiltInCheck.ORDER_DETAILS_CHECK


FRANZ = Customer(id=7, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Praha", level="gold")


def order(id: str = "o1", **content: Any) -> Order:  # noqa: A002
    """A valid order of 1 x 5, with the fields in `content` replaced."""
    sound = {"customer_id": 1, "product": "JUMPERS", "quantity": 1, "price": 5, "created_at": NOON}
    return Order(id=id, **{**sound, **content})


def verdict(check: CheckType, result: str = "PASS", order_id: str = "o1", reason: str | None = None) -> OrderValidation:
    return OrderValidation(
        order_id=order_id, check_type=check, validation_result=ValidationResult(result), reason=reason
    )


def checked_in(event_id: str = "c1", order_id: str = "o1") -> HomeCheckin:
    return HomeCheckin(
        event_id=event_id,
        internet_no="8850049302",
        order_no=order_id,
        staff_code="cs_eng_ftth",
        job_status="homecheckedin",
        checkin_latitude=13.78,
        checkin_longitude=100.54,
        checkin_date=NOON,
    )

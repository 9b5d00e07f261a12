"""CREDIT_CHECK in memory, with virtual time and without a broker."""

from decimal import Decimal

from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import Order
from schemas.topics import ORDER_VALIDATIONS, ORDERS

from credit_check.app import build


def verdict(quantity: int) -> tuple[str, str | None]:
    """Returns result and reason of the verdict on an order of this quantity, at 12 each."""
    driver = TopologyTestDriver(build(Settings(credit_limit=1000)).service)
    order = Order(id="o-1", customer_id=7, product="mug", quantity=quantity, price=Decimal(12), created_at=driver.now)
    driver.send(ORDERS, order)
    [found] = driver.values(ORDER_VALIDATIONS)
    assert found.check_type == "CREDIT_CHECK"
    return found.validation_result, found.reason


def test_a_small_order_passes() -> None:
    assert verdict(quantity=1) == ("PASS", None)


def test_an_order_above_the_limit_fails_with_the_reason() -> None:
    result, reason = verdict(quantity=101)
    assert result == "FAIL"
    assert reason is not None
    assert "credit limit is 1000.00 EUR" in reason

"""`ORDER_PRICES=catalogue`: an order has the price of its product when it was ordered."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import ProductEvent
from schemas.topics import ORDER_VALIDATIONS, ORDERS, PRODUCTS
from tests.samples import NOON, order
from validators.details.app import build
from validators.details.state import OFFERS, PricedOffer

SECOND = timedelta(seconds=1)
CHANGED = NOON + 1000 * SECOND


def product(version, price, at=NOON, kind="UPDATED"):
    return ProductEvent(
        event_id=f"e{version}", kind=kind, code="JUMPERS", name="Jumper", price=price, version=version, at=at
    )


def details(**settings):
    return TopologyTestDriver(build(Settings(**{"order_prices": "catalogue", **settings})).service, partitions=1)


def reason(driver, price, at):
    """Reason of the verdict on a new order; `None` for a PASS."""
    order_id = f"o{len(driver.values(ORDER_VALIDATIONS))}"
    driver.send(ORDERS, order(order_id, price=price, created_at=at))
    return driver.values(ORDER_VALIDATIONS)[-1].reason


@pytest.mark.parametrize(
    ("price", "seconds", "expected"),
    [
        ("10", -1, None),
        ("10.00", -1, None),
        ("12", -1, "price is 12.00 EUR, the price of 'JUMPERS' is 10.00 EUR"),
        ("12", 0, None),
        ("10", 0, None),
        ("10", 300, None),
        ("12", 300, None),
        ("11", 300, "price is 11.00 EUR, the price of 'JUMPERS' is 12.00 EUR"),
        ("10", 301, "price is 10.00 EUR, the price of 'JUMPERS' is 12.00 EUR"),
        ("12", 301, None),
        ("12.0001", 301, "price is 12.0001 EUR, the price of 'JUMPERS' is 12.00 EUR"),
    ],
)
def test_the_price_is_that_of_the_product_or_for_a_while_the_one_before(price, seconds, expected):
    driver = details()
    driver.send(PRODUCTS, product(1, 10), product(2, 12, CHANGED))
    assert reason(driver, Decimal(price), CHANGED + seconds * SECOND) == expected


def test_the_first_price_of_a_product_counts_from_the_start():
    driver = details()
    driver.send(PRODUCTS, product(1, 10, kind="CREATED"))
    assert [reason(driver, 9, NOON + n * SECOND) is None for n in (-1, 0, 301)] == [False] * 3
    assert [reason(driver, 10, NOON + n * SECOND) is None for n in (-1, 0, 301)] == [True] * 3


def test_a_change_without_a_new_price_starts_no_grace():
    driver = details()
    driver.send(PRODUCTS, product(1, 10), product(2, 12, CHANGED), product(3, 12, CHANGED + 400 * SECOND))
    assert reason(driver, 10, CHANGED + 401 * SECOND) is not None
    assert driver.row(OFFERS.table, "JUMPERS") == PricedOffer(version=3, price=12, since=CHANGED, previous=10)


def test_the_grace_period_is_a_setting():
    driver = details(price_grace_s=0)
    driver.send(PRODUCTS, product(1, 10), product(2, 12, CHANGED))
    assert reason(driver, 10, CHANGED) is None
    assert reason(driver, 10, CHANGED + SECOND) is not None


def test_amounts_have_the_digits_of_the_currency():
    driver = details(currency="JPY")
    driver.send(PRODUCTS, product(1, 1000))
    assert reason(driver, 900, NOON) == "price is 900 JPY, the price of 'JUMPERS' is 1000 JPY"


def test_by_default_any_price_passes():
    driver = details(order_prices="any")
    driver.send(PRODUCTS, product(1, 10))
    assert reason(driver, 3, NOON) is None


@pytest.mark.parametrize(("unknown", "expected"), [("fail", "there is no product 'JUMPERS'"), ("pass", None)])
def test_unknown_products_have_no_price(unknown, expected):
    assert reason(details(unknown_products=unknown), 10, NOON) == expected


def test_a_row_of_an_earlier_version_has_no_price_until_the_next_change():
    row = PricedOffer.from_json(b'{"version": 4, "withdrawn": false}')
    assert row.prices_at(NOON, SECOND) == (None,)
    row = PricedOffer.after(product(5, 12, CHANGED), row)
    assert row.prices_at(CHANGED - SECOND, SECOND) == (None,)
    assert row.prices_at(CHANGED + SECOND, SECOND) == (Decimal(12), None)
    assert row.prices_at(CHANGED + 2 * SECOND, SECOND) == (Decimal(12),)


def test_with_an_unknown_price_an_order_passes():
    driver = details()
    driver.send(PRODUCTS, product(5, 12, CHANGED))  # versions 1 to 4 are missing
    assert [reason(driver, 1, CHANGED + n * SECOND) is None for n in (-1, 300, 301)] == [True, True, False]


def test_a_replayed_order_gets_its_first_verdict_after_the_price_changed():
    driver = details()
    driver.send(PRODUCTS, product(1, 10))
    first = order(price=10, created_at=CHANGED + 500 * SECOND)
    driver.send(ORDERS, first)
    driver.send(PRODUCTS, product(2, 12, CHANGED))
    driver.send(ORDERS, first)
    assert [str(v.validation_result) for v in driver.values(ORDER_VALIDATIONS)] == ["PASS", "PASS"]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_times_at_the_limits_of_datetime_do_not_overflow(at):
    driver = details(price_grace_s=1e9)
    driver.send(PRODUCTS, product(1, 10))
    assert reason(driver, 10, at) is None


@given(
    st.lists(st.tuples(st.integers(1, 400), st.integers(1, 3)), min_size=1, max_size=6),
    st.integers(-100, 2500),
    st.integers(1, 3),
)
def test_an_order_passes_exactly_if_a_price_in_force_matches(changes, second, price):
    """Compared with the whole history, for orders since the last change of the price but one."""
    driver, at, history = details(), 0, []
    for version, (gap, amount) in enumerate(changes, 1):
        at += gap
        driver.send(PRODUCTS, product(version, amount, NOON + at * SECOND))
        if not history or history[-1][1] != amount:
            history.append((at, amount))
    if len(history) > 1 and second < history[-2][0]:
        second = history[-2][0]
    current = [(start, amount) for start, amount in history if start <= second] or history[:1]
    allowed = {current[-1][1]}
    if len(current) == len(history) > 1 and second - current[-1][0] <= 300:
        allowed.add(current[-2][1])
    assert (reason(driver, price, NOON + second * SECOND) is None) == (price in allowed)

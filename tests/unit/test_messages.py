import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from schemas.messages import (
    Cancellation,
    CheckinRejected,
    Customer,
    Fulfilled,
    HomeCheckin,
    Order,
    OrderEnriched,
    OrderState,
    OrderValidation,
    Payment,
    ProductAlert,
    ProductEvent,
    Refund,
    RequiredChecks,
    StockLevel,
)
from schemas.topics import CATALOGUE
from tests.samples import order

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "cancellation": Cancellation,
    "refund": Refund,
    "required_checks": RequiredChecks,
    "checkin_rejected": CheckinRejected,
    "fulfilled": Fulfilled,
    "home_checkin": HomeCheckin,
    "customer": Customer,
    "order": Order,
    "order_enriched": OrderEnriched,
    "order_validation": OrderValidation,
    "payment": Payment,
    "product_alert": ProductAlert,
    "product_event": ProductEvent,
    "stock_level": StockLevel,
}
REQUIRED = [
    (name, field.alias)
    for name, model in MODELS.items()
    for field in model.model_fields.values()  # type: ignore[attr-defined]
    if field.is_required()
]
each_model = pytest.mark.parametrize("name", MODELS)


def golden(name):
    return (GOLDEN / f"{name}.json").read_bytes().strip()


def test_every_message_in_the_catalogue_has_a_golden_file():
    assert {topic.model for topic in CATALOGUE} == set(MODELS.values())


@each_model
def test_the_wire_format_of_a_message_is_unchanged_byte_by_byte(name):
    assert MODELS[name].from_json(golden(name)).to_json() == golden(name)  # type: ignore[attr-defined]


@each_model
def test_a_copy_is_that_of_pydantic(name):
    message = MODELS[name].from_json(golden(name))  # type: ignore[attr-defined]
    first, value = next(iter(message))
    for update in (None, {}, {first: 2 * value}):
        copy, expected = message.model_copy(update=update), BaseModel.model_copy(message, update=update)
        assert copy == expected
        assert repr(copy) == repr(expected)
        assert copy.to_json() == expected.to_json()
        assert copy.model_copy(deep=True) == pickle.loads(pickle.dumps(copy)) == expected
        assert copy is not message
        with pytest.raises(ValidationError, match="frozen"):
            setattr(copy, first, value)
    assert message.to_json() == golden(name)


@each_model
def test_unknown_fields_of_a_later_version_are_ignored(name):
    assert MODELS[name].from_json(golden(f"{name}.later")) == MODELS[name].from_json(golden(name))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_missing_required_field_is_named(name, field):
    incomplete = {key: value for key, value in json.loads(golden(name)).items() if key != field}
    with pytest.raises(ValidationError) as refusal:
        MODELS[name].from_json(json.dumps(incomplete).encode())  # type: ignore[attr-defined]
    assert [fault["loc"] for fault in refusal.value.errors()] == [(field,)]


def test_an_order_of_the_reference_without_time_and_state_is_readable():
    before = datetime.now(UTC)
    read = Order.from_json(b'{"id":"o1","customerId":15,"product":"UNDERPANTS","quantity":3,"price":5.0}')
    assert read.state is OrderState.CREATED
    assert before <= read.created_at <= datetime.now(UTC)


printable = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=128)
orders = st.builds(
    order,
    id=printable.filter(lambda text: text not in {".", ".."}),
    customer_id=st.integers(-(2**63), 2**63 - 1),
    state=st.sampled_from(OrderState),
    product=st.text(st.characters(exclude_categories=["Cs"]), max_size=256),
    quantity=st.integers(-1_000_000_000, 1_000_000_000),
    price=st.decimals(-99_999_999_999, 99_999_999_999, places=4),
    created_at=st.datetimes(timezones=st.just(UTC)),
)


@given(orders)
def test_any_order_survives_a_round_trip(any_order):
    read = Order.from_json(any_order.to_json())
    assert read == any_order
    assert read.same_content(any_order)
    assert read.to_json() == any_order.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"price": "NaN"},
        {"price": "Infinity"},
        {"price": 1.23456},
        {"price": 123456789012},
        {"quantity": 1.5},
        {"quantity": "1"},
        {"quantity": True},
        {"quantity": 1_000_000_001},
        {"customerId": 2**63},
        {"id": ""},
        {"id": "a\nb"},
        {"id": " a"},
        {"id": ".."},
        {"id": "x" * 129},
        {"state": "LOST"},
        {"createdAt": "2026-01-01T12:00:00"},
    ],
    ids=str,
)
def test_a_malformed_order_is_rejected(change):
    with pytest.raises(ValidationError):
        Order.from_json(json.dumps({**json.loads(golden("order")), **change}).encode())


def test_equal_instants_in_different_time_zones_are_equal():
    there = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert order(created_at=there) == order(created_at=datetime(2026, 1, 1, 12, tzinfo=UTC))


def test_the_value_of_an_order_is_quantity_times_price():
    assert order(quantity=3, price=Decimal("0.1")).value == Decimal("0.3")

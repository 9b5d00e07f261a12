"""State transitions of products, validation of bodies, and product files."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ecosystem.cli.csv_files import InvalidFile
from ecosystem.cli.product_import import read_products
from products_service.transitions import Withdrawn, change, withdraw
from runtime.http.conditional import StaleVersion
from runtime.http.validation import invalid_request
from schemas.api import NewProduct, Product, ProductContent, ProductState

MUG = ProductContent(name="Mug", price=Decimal(12))
CHEAP = ProductContent(name="Mug", price=Decimal(11))


def product(version=3, state=ProductState.ACTIVE, **changes) -> Product:
    content = {"code": "mug", "name": "Mug", "price": Decimal("12.00"), "changed_at": datetime.now(UTC), **changes}
    return Product(version=version, state=state, **content)


def outcome(rule, *arguments):
    try:
        after = rule(*arguments)
    except (StaleVersion, Withdrawn) as refusal:
        return type(refusal)
    return None if after is None else (after.version, str(after.state), after.name, after.price)


@pytest.mark.parametrize(
    ("state", "content", "expected", "after"),
    [
        ("ACTIVE", CHEAP, None, (4, "ACTIVE", "Mug", 11)),
        ("ACTIVE", CHEAP, {3}, (4, "ACTIVE", "Mug", 11)),
        ("ACTIVE", CHEAP, {1, 3}, (4, "ACTIVE", "Mug", 11)),
        ("ACTIVE", CHEAP, {2}, StaleVersion),
        ("ACTIVE", CHEAP, set(), StaleVersion),
        ("ACTIVE", MUG, None, None),
        ("ACTIVE", MUG, {2}, None),  # what was asked for is so already
        ("WITHDRAWN", MUG, {3}, (4, "ACTIVE", "Mug", 12)),
        ("WITHDRAWN", CHEAP, {3}, (4, "ACTIVE", "Mug", 11)),
        ("WITHDRAWN", MUG, {2}, StaleVersion),
        ("WITHDRAWN", MUG, None, Withdrawn),
    ],
)
def test_a_change_is_the_next_version_unless_it_expects_another(state, content, expected, after):
    assert outcome(change, product(state=ProductState(state)), content, expected) == after


@pytest.mark.parametrize(
    ("state", "expected", "after"),
    [
        ("ACTIVE", None, (4, "WITHDRAWN", "Mug", 12)),
        ("ACTIVE", {3}, (4, "WITHDRAWN", "Mug", 12)),
        ("ACTIVE", {2}, StaleVersion),
        ("WITHDRAWN", None, None),
        ("WITHDRAWN", {2}, None),
    ],
)
def test_a_withdrawal_is_the_next_version_once(state, expected, after):
    assert outcome(withdraw, product(state=ProductState(state)), expected) == after


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["PUT", "DELETE"]), st.sampled_from([11, 12]), st.none() | st.integers(1, 8)),
    max_size=20,
)


@given(REQUESTS)
def test_each_change_increments_the_version_and_a_repetition_changes_nothing(requests):
    now = product(version=1)
    for method, price, seen in requests:
        expected = None if seen is None else {seen}

        def ask(one, method=method, price=price, expected=expected):
            if method == "DELETE":
                return withdraw(one, expected)
            return change(one, ProductContent(name="Mug", price=price), expected)

        try:
            after = ask(now)
        except (StaleVersion, Withdrawn):
            continue
        if after is not None:
            assert after.version == now.version + 1
            assert seen in {None, now.version}
            assert (after.state, after.price) != (now.state, now.price)
            now = after
        assert ask(now) is None


def test_a_request_without_the_version_of_the_withdrawal_cannot_undo_it():
    gone = withdraw(product(), None)
    for seen in (None, {1}, {3}):
        with pytest.raises((StaleVersion, Withdrawn)):
            change(gone, CHEAP, seen)
    assert change(gone, CHEAP, {gone.version}).state is ProductState.ACTIVE


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("price", -0.01, "must be at least 0"),
        ("price", "12", "must be a number"),
        ("price", 1.23456, "at most 4 digits after the point"),
        ("name", "", "must not be empty"),
        ("name", " ", "must not be blank"),
        ("name", "a\nb", "line breaks"),
        ("name", "x\x00", "control"),
        ("name", "x" * 257, "at most 256"),
        ("code", "", "must not be empty"),
        ("code", "a\tb", "must not contain control"),
        ("code", "..", "another id"),
        ("code", "x" * 65, "at most 64"),
    ],
)
def test_an_invalid_field_is_named_with_its_remedy(field, value, advice):
    with pytest.raises(ValidationError) as error:
        NewProduct.model_validate({"code": "mug", "name": "Mug", "price": 12, field: value})
    [fault] = invalid_request(error.value).errors
    assert fault.name == field
    assert advice in fault.reason


def test_a_product_file_may_have_its_columns_in_any_order():
    lines = ["price, name,code", '12.50, "Mug, large",mug', "0,Sticker,sticker"]
    assert read_products("products.csv", lines) == [
        NewProduct(code="mug", name="Mug, large", price=Decimal("12.50")),
        NewProduct(code="sticker", name="Sticker", price=Decimal(0)),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "1: code is missing: the first line names the columns, code,name,price"),
        (["code,name", "mug,Mug"], "1: price is missing"),
        (["code,name,price", "mug,Mug,1", "jug,Jug,cheap"], "3: price must be an amount such as 9.90"),
        (["code,name,price", "mug,Mug"], "2: price is missing"),
        (["code,name,price", "mug,Mug,-1"], "2: price must be at least 0"),
        (["code,name,price", "mug,Mug,NaN"], "2: price "),
        (
            ["code,name,price", "mug,Mug,1", "mug,Mug,2"],
            "3: code occurs in line 2 already: each product must occur once",
        ),
    ],
)
def test_errors_in_a_product_file_are_reported_with_their_line(lines, said):
    with pytest.raises(InvalidFile) as error:
        read_products("products.csv", lines)
    assert f"products.csv:{said}" in str(error.value)

"""Texts of validation errors: the field as its writer named it, what to do, and nothing of the input."""

import ast
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AwareDatetime, Field, StrictInt, TypeAdapter, ValidationError

from ecosystem.cli.csv_files import CsvSchema
from runtime.http.validation import invalid_request
from schemas.validation import FieldError, describe_invalid, field_errors
from schemas.wire import Message, Money

ROOT = Path(__file__).parents[2]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(Message):
    part_name: Annotated[str, Field(min_length=1, max_length=3)]


class Whole(Message):
    some_parts: tuple[Part, ...] = ()
    price: Annotated[Money, Field(ge=0)]


def invalid(type_: Any, value: object) -> ValidationError:
    """The error of a value that is not of this type."""
    with pytest.raises(ValidationError) as error:
        TypeAdapter(type_).validate_python(value)
    return error.value


@pytest.mark.parametrize(
    ("type_", "value", "reason"),
    [
        (StrictInt, "4711", "must be a whole number such as 3"),
        (int, "4711x", "must be a whole number such as 3"),
        (int, 4711.5, "must be a whole number such as 3"),
        (Decimal, "4711x", "must be a number such as 9.99"),
        (Decimal, None, "must be a number such as 9.99"),
        (float, "4711x", "must be a number such as 9.99"),
        (float, None, "must be a number such as 9.99"),
        (Money, Decimal("NaN"), "must be a finite number"),
        (Money, Decimal("4711.00001"), "must have at most 4 digits after the point"),
        (Money, Decimal(471111111111), "must have at most 11 digits before the point"),
        (Annotated[Decimal, Field(max_digits=3)], Decimal(4711), "must have at most 3 digits in all"),
        (Annotated[int, Field(le=3)], 4711, "must be at most 3"),
        (Annotated[int, Field(lt=3)], 4711, "must be below 3"),
        (Annotated[int, Field(ge=9000)], 4711, "must be at least 9000"),
        (Annotated[int, Field(gt=9000)], 4711, "must be above 9000"),
        (Annotated[str, Field(pattern="^[A-Z]{2,9}$")], "4711", "must match the pattern ^[A-Z]{2,9}$"),
        (bool, "4711", "must be true or false"),
        (str, 4711, "must be text in quotes"),
        (str, b"4711\xff", "must be UTF-8"),
        (Annotated[str, Field(min_length=1)], "", "must not be empty"),
        (Annotated[str, Field(min_length=5)], "4711", "must have at least 5 characters"),
        (Annotated[str, Field(max_length=3)], "4711", "must have at most 3 characters"),
        (Colour, "4711", "must be 'red' or 'blue'"),
        (datetime, "4711x", "must be a date and time such as 2026-01-31T12:00:00Z"),
        (datetime, "2026-01-31T12:00x", "must be a date and time such as 2026-01-31T12:00:00Z"),
        (datetime, None, "must be a date and time such as 2026-01-31T12:00:00Z"),
        (AwareDatetime, "2026-01-31T12:00:00", "must have a time zone"),
        (Part, 4711, "must be a JSON object"),
        (Part, {}, "is missing: add it"),
    ],
)
def test_an_error_says_what_to_do_and_repeats_nothing_of_the_input(type_, value, reason):
    [error] = field_errors(invalid(type_, value))
    assert error.reason.startswith(reason)
    assert "4711" not in str(error)


def test_a_field_is_named_by_its_path_on_the_wire_and_the_whole_message_by_a_word():
    errors = field_errors(invalid(Whole, {"someParts": [{"partName": "a"}, {}], "price": -1}))
    assert errors == [
        FieldError("someParts.1.partName", "is missing: add it"),
        FieldError("price", "must be at least 0"),
    ]
    with pytest.raises(ValidationError) as error:
        Whole.from_json(b"{")
    assert describe_invalid(error.value).startswith("message must be JSON in UTF-8: ")
    assert describe_invalid(error.value, "body").startswith("body must be JSON")


def test_a_client_and_the_owner_of_a_file_read_the_same_text():
    error = invalid(Whole, {"price": -1})
    [row] = CsvSchema(Whole, "price", "whole").rows(["price\n", "-1\n"])
    [param] = invalid_request(error).errors
    assert f"{row.field} {row.reason}" == f"{param.name} {param.reason}" == describe_invalid(error)


def test_no_other_module_translates_validation_errors():
    """`ErrorDetails` and `.errors()` of pydantic are used in one module."""
    tops = ("runtime", "ecosystem", "schemas", "validators", "*_service", "product_subscribers")
    found = {
        path.relative_to(ROOT).as_posix()
        for top in tops
        for path in ROOT.glob(f"{top}/**/*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "errors")
        or (isinstance(node, ast.ImportFrom) and "ErrorDetails" in {alias.name for alias in node.names})
    }
    assert found == {"schemas/validation.py"}

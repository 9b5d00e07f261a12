"""Formatting of amounts: at least the decimal places of the currency, never rounded."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ecosystem.settings import CommandSettings
from schemas.messages import Payment
from schemas.money import format_amount, plain_amount


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        ("12", "EUR", "12.00 EUR"),
        ("0.5", "EUR", "0.50 EUR"),
        ("0.125", "EUR", "0.125 EUR"),
        ("12.5000", "EUR", "12.50 EUR"),
        ("0.0001", "EUR", "0.0001 EUR"),
        ("500", "JPY", "500 JPY"),
        ("500.0", "JPY", "500 JPY"),
        ("500.5", "JPY", "500.5 JPY"),
        ("1.5", "KWD", "1.500 KWD"),
        ("1", "CLF", "1.0000 CLF"),
        ("1E+3", "EUR", "1000.00 EUR"),
        ("1E-4", "EUR", "0.0001 EUR"),
        ("-0.00", "EUR", "0.00 EUR"),
        ("-0.5", "EUR", "-0.50 EUR"),
        ("99999999999.9999", "EUR", "99999999999.9999 EUR"),
        ("123456789012345678901234567890123", "XXX", "123456789012345678901234567890123.00 XXX"),
    ],
)
def test_an_amount_has_the_decimal_places_of_its_currency(amount, currency, said):
    assert format_amount(Decimal(amount), currency) == said


@given(st.decimals(allow_nan=False, allow_infinity=False), st.sampled_from(("EUR", "JPY", "KWD", "CLF")))
def test_no_amount_is_rounded(amount, currency):
    assert Decimal(plain_amount(amount, currency)) == amount


@pytest.mark.parametrize("code", ["", "eur", "EURO", "EU", "€€€", "E1R", "ÉUR", " EUR"])
def test_a_malformed_currency_setting_is_rejected(code):
    with pytest.raises(ValidationError, match=r"currency\n.*must be three capital letters of ISO 4217, such as EUR"):
        CommandSettings(currency=code)


@pytest.mark.parametrize(
    ("said", "read"), [("EUR", "EUR"), ("eur", "EUR"), ("Eur", "EUR"), ("ßab", "ßab"), ("12!", "12!")]
)
def test_the_currency_of_a_payment_is_read_in_capitals(said, read):
    raw = f'{{"id":"p1","orderId":"o1","ccy":"{said}","amount":1}}'
    assert Payment.from_json(raw.encode()).ccy == read

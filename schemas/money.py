"""Currencies (ISO 4217), and amounts formatted for people.

On the wire amounts are plain numbers (`schemas/wire.py`).
"""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

# Decimal places of currencies that do not have two (ISO 4217, list one, column "minor unit"). Not from CLDR (Babel),
# which has the digits in use instead: none for the IQD, which has three.
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def digits(currency: str) -> int:
    """Number of decimal places of a currency."""
    return _DIGITS.get(currency, 2)


def plain_amount(amount: Decimal, currency: str) -> str:
    """Formats an amount with at least the decimal places of its currency: `12.00`, `0.125`. Never rounds."""
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(digits(currency), "0")
    text = f"{whole}.{fraction}" if fraction else whole
    return text.removeprefix("-") if not amount else text  # no -0.00


def format_amount(amount: Decimal, currency: str) -> str:
    """Formats an amount with its currency code: `12.00 EUR`, `500 JPY`, `0.125 KWD`. Never rounds."""
    return f"{plain_amount(amount, currency)} {currency}"


def _upper(code: str) -> str:
    return code.upper() if code.isascii() else code


CurrencyCode = Annotated[str, AfterValidator(_upper)]
"""Currency code in any case, read as capitals: `eur` is `EUR`.

Text outside ISO 4217 is a currency of its own.
"""


def currency(code: str) -> str:
    """Validates the currency code of orders. Raises `ValueError` unless it has the form of ISO 4217."""
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise ValueError(f"{code!r} is not a currency code: it must be three capital letters of ISO 4217, such as EUR")
    return code


OrderCurrency = Annotated[
    str,
    AfterValidator(currency),
    Field(description="ISO 4217 code of the currency of all orders; payments in others do not count"),
]
"""The setting `CURRENCY`. Every service that reads amounts declares it with `DEFAULT_CURRENCY`."""

DEFAULT_CURRENCY = "EUR"

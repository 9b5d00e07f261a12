"""Currencies (ISO 4217), and amounts as people read them.

The wire carries plain numbers (`schemas/wire.py`); this module is for text.
"""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator

# Digits after the point that a currency has, where they are not two (ISO 4217, list one, column "minor unit"). The
# locale data of CLDR (Babel) counts what is in use instead: none for the IQD, which has three.
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def digits(currency: str) -> int:
    """How many digits after the point amounts in a currency have."""
    return _DIGITS.get(currency, 2)


def plain_amount(amount: Decimal, currency: str) -> str:
    """The amount with the digits of its currency, and with more where it has more: `12.00`, `0.125`. Never rounded."""
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(digits(currency), "0")
    text = f"{whole}.{fraction}" if fraction else whole
    return text.removeprefix("-") if not amount else text  # no -0.00


def format_amount(amount: Decimal, currency: str) -> str:
    """The amount and its currency: `12.00 EUR`, `500 JPY`, `0.125 KWD`. Never rounded."""
    return f"{plain_amount(amount, currency)} {currency}"


def _upper(code: str) -> str:
    return code.upper() if code.isascii() else code


CurrencyCode = Annotated[str, AfterValidator(_upper)]
"""A code as some producer writes it, in capitals: `eur` is `EUR`. Any other text stands for a currency of its own."""


def currency(code: str) -> str:
    """The code of the currency that orders are in. Raises `ValueError` if it has not the form of ISO 4217."""
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        raise ValueError(f"{code!r} is no currency: it must be three capital letters of ISO 4217, such as EUR")
    return code

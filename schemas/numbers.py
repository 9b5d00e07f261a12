"""Parses numbers in files, options and settings: plain digits, one spelling per number.

Python's `int`, `float` and `Decimal` also accept `2_000`, `+5`, ` 5 `, `1e3`, `NaN` and digits of other scripts.
Guessing their meaning could address another customer.
"""

import re
from decimal import Decimal

# At most 40 digits: no valid value has more, and Python refuses to parse thousands.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,39}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?")
_LEADING_ZEROS = re.compile(r"(-?)0+([0-9].*)")


def whole(text: str) -> int:
    """Parses a whole number. Raises `ValueError` with a text that continues a field's name."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if (plain := _without_zeros(text)) and _WHOLE.fullmatch(plain):
        raise ValueError(f"must be a whole number without leading zeros: write {plain}")
    raise ValueError("must be a whole number such as 15, in plain digits")


def decimal(text: str, noun: str = "a number") -> Decimal:
    """Parses a number with an optional fraction after a point. Raises `ValueError` as `whole` does."""
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    if (plain := _without_zeros(text)) and _DECIMAL.fullmatch(plain):
        raise ValueError(f"must be {noun} without leading zeros: write {plain}")
    if (point := text.replace(",", ".", 1)) != text and _DECIMAL.fullmatch(point):
        raise ValueError(f"must be {noun} with a point, not a comma: write {point}")
    raise ValueError(f"must be {noun} such as 9.90, in plain digits")


def _without_zeros(text: str) -> str | None:
    match = _LEADING_ZEROS.fullmatch(text)
    return None if match is None else match[1] + match[2]

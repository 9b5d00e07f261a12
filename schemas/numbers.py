"""Numbers as people write them into files, options and the environment: plain digits, and one way to write each.

Python's `int`, `float` and `Decimal` also read `2_000`, `+5`, ` 5 `, `1e3`, `NaN` and the digits of other scripts. What
is meant by these is a guess, and one that can name another customer.
"""

import re
from decimal import Decimal

# Longer ones are no numbers of ours; Python refuses to read one of thousands of digits.
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,39}")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?")
_LEADING_ZEROS = re.compile(r"(-?)0+([0-9].*)")


def whole(text: str) -> int:
    """A whole number, negative ones with a minus. Raises `ValueError`, whose text goes on after a field's name."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if (plain := _without_zeros(text)) and _WHOLE.fullmatch(plain):
        raise ValueError(f"must be a whole number without leading zeros: write {plain}")
    raise ValueError("must be a whole number such as 15, in plain digits")


def decimal(text: str, noun: str = "a number") -> Decimal:
    """A number that may have a fraction behind a point. Raises `ValueError`, as `whole` does."""
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

"""Translates pydantic's validation errors into field, cause and remedy, for HTTP, files, settings and dead letters."""

from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_WHOLE = "must be a whole number such as 3: no quotes, no fraction, not true, false or null"
_NUMBER = "must be a number such as 9.99: no quotes, not true, false or null"
_TIME = "must be a date and time such as 2026-01-31T12:00:00Z"

# By pydantic's type of error; names in braces are of the error's context. Other types keep pydantic's text. No text
# contains the input: logs and headers must not contain orders.
_REASONS = {
    "missing": "is missing: add it",
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "decimal_type": _NUMBER,
    "decimal_parsing": _NUMBER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number such as 9.99",
    "decimal_max_places": "must have at most {decimal_places} digits after the point",
    "decimal_max_digits": "must have at most {max_digits} digits in all",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": 'must be text in quotes, such as "book"',
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_unicode": "must be UTF-8",
    "enum": "must be {expected}",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": "must have a time zone: append Z for UTC, as in 2026-01-31T12:00:00Z",
    "value_error": "{error}",
    "model_type": "must be a JSON object, in braces",
    "json_invalid": "must be JSON in UTF-8: {error}",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid field, by its path in the message, and what to do about it; `str()` is a sentence without its stop."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field} {self.reason}"


def field_errors(error: ValidationError, whole: str = "message") -> list[FieldError]:
    """Returns the invalid fields as their writer named them; `whole` stands for the message as a whole."""
    details = error.errors(include_url=False, include_input=False)
    return [FieldError(".".join(map(str, detail["loc"])) or whole, _reason(detail)) for detail in details]


def describe_invalid(error: ValidationError, whole: str = "message") -> str:
    """Returns one line that names every invalid field."""
    return "; ".join(map(str, field_errors(error, whole)))


def _reason(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "string_too_short" and context["min_length"] == 1:
        return "must not be empty"
    reason = _REASONS.get(detail["type"])
    return detail["msg"] if reason is None else reason.format_map(context)

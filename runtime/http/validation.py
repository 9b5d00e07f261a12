"""Translates pydantic's validation errors into problems that tell a client what to correct, field by field."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runtime.http.answers import HttpProblem
from schemas.api import InvalidParam

# By pydantic's type of error; names in braces are of the error's context. Other types keep pydantic's text.
_ADVICE = {
    "missing": "is required: add it",
    "int_type": "must be a whole number such as 3: no quotes, no fraction, not true, false or null",
    "string_type": 'must be text in quotes, such as "book"',
    "decimal_type": "must be a number such as 9.99: no quotes, not true, false or null",
    "float_type": "must be a number such as 9.99: no quotes, not true, false or null",
    "finite_number": "must be a finite number such as 9.99",
    "decimal_max_places": "must have at most {decimal_places} digits after the point",
    "decimal_max_digits": "must have at most {max_digits} digits in all",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "less_than_equal": "must be at most {le}",
    "greater_than_equal": "must be at least {ge}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "value_error": "{error}",
    "model_type": "must be a JSON object, in braces",
    "json_invalid": "must be JSON in UTF-8: {error}",
}


def invalid_request(error: ValidationError) -> HttpProblem:
    """A 400 that names each invalid field as the client wrote it; `body` is the body as a whole."""
    details = error.errors(include_url=False, include_input=False)
    params = [InvalidParam(name=".".join(map(str, d["loc"])) or "body", reason=_advice(d)) for d in details]
    return HttpProblem(400, "; ".join(f"{param.name} {param.reason}" for param in params) + ".", errors=params)


def _advice(detail: ErrorDetails) -> str:
    advice = _ADVICE.get(detail["type"])
    return detail["msg"] if advice is None else advice.format_map(detail.get("ctx", {}))

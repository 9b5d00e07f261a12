"""Problem responses for invalid inputs, which tell a client what to correct, field by field."""

from pydantic import ValidationError

from runtime.http.answers import HttpProblem
from schemas.api import InvalidParam
from schemas.validation import describe_invalid, field_errors


def invalid_request(error: ValidationError) -> HttpProblem:
    """A 400 that names each invalid field as the client wrote it; `body` is the body as a whole."""
    params = [InvalidParam(name=e.field, reason=e.reason) for e in field_errors(error, "body")]
    return HttpProblem(400, f"{describe_invalid(error, 'body')}.", errors=params)


def invalid_input(name: str, reason: str, detail: str | None = None) -> HttpProblem:
    """A 400 for one input: `name` as the client wrote it, `reason` what it must be, `detail` other words for both."""
    return HttpProblem(400, detail or f"{name} {reason}.", errors=[InvalidParam(name=name, reason=reason)])

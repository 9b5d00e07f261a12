"""Customers as people write them down: checked field by field, from a CSV file row by row."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from schemas.messages import Customer, CustomerLevel

MOST_SHOWN = 20
"""Faults of a file that are told; of more than these, how many."""


def _addressable(email: str) -> str:
    try:
        Address(addr_spec=email)  # as the letters are addressed
    except (ValueError, IndexError):
        raise PydanticCustomError("email", "must be an address such as franz@example.org") from None
    return email


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("one_line", "must be printable text on one line")
    return text


_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


class NewCustomer(Customer):
    """A customer with nothing missing, of a level that exists, and with an address that letters can be sent to."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    first_name: _Name
    last_name: _Name
    email: Annotated[str, Field(max_length=254), AfterValidator(_addressable)]  # the length: RFC 5321, 4.5.3.1.3
    address: str = Field(min_length=1, max_length=1000)
    level: CustomerLevel = CustomerLevel.BRONZE


COLUMNS = tuple(str(field.alias) for field in NewCustomer.model_fields.values())
_NEEDED = tuple(str(field.alias) for field in NewCustomer.model_fields.values() if field.is_required())

_ADVICE = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_unicode": "must be UTF-8",
    "int_parsing": "must be a whole number such as 15",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
}
"""By pydantic's type of error; others go through in its own words."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong in a file: where (the line a row ends in; the field as its column is called) and what to do."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.line}: {self.field} {self.reason}"


class BadFile(Exception):
    """A file with faults: a line for each of the first, each with file and line."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        shown = [f"{path}:{fault}" for fault in faults[:MOST_SHOWN]]
        more = [f"and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
        super().__init__("\n".join([*shown, *more]))


def faults_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each field at fault, as its column is called, with what to do about it."""
    details = error.errors(include_url=False, include_input=False)
    return [(str(detail["loc"][0]), _advice(detail)) for detail in details]


def check(path: Path) -> int:
    """How many customers the file holds. Raises `BadFile` with all that is wrong in it, and `OSError`."""
    found = list[Fault]()
    count = 0
    for row in _rows(path):
        if isinstance(row, Fault):
            found.append(row)
        else:
            count += 1
    if found:
        raise BadFile(path, found)
    return count


def read(path: Path) -> Iterator[NewCustomer]:
    """The customers of a file, which has been checked. Raises `BadFile` where it has changed since."""
    for row in _rows(path):
        if isinstance(row, Fault):
            raise BadFile(path, [row])
        yield row


def _rows(path: Path) -> Iterator[NewCustomer | Fault]:
    # Bytes that are not UTF-8 become surrogates, which pydantic refuses: so the fault has a line and a field.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        lines = dict[int, int]()
        try:
            wrong = list(_header_faults(reader.fieldnames or ()))
            yield from wrong
            for row in () if wrong else reader:
                yield from _row(row, reader.line_num, lines)
        except csv.Error as error:
            yield Fault(reader.reader.line_num, "row", f"is no CSV: {error}")


def _header_faults(names: Sequence[str]) -> Iterator[Fault]:
    for name in _NEEDED:
        if name not in names:
            yield Fault(1, name, f"is missing: the first line names the columns, {','.join(COLUMNS)}")
    for number, name in enumerate(names):
        if name not in COLUMNS:
            yield Fault(1, repr(name), f"is no column: there are {', '.join(COLUMNS)}")
        elif name in names[:number]:
            yield Fault(1, name, "is there twice")


def _row(row: dict[str, str | None], line: int, lines: dict[int, int]) -> Iterator[NewCustomer | Fault]:
    if None in row:
        yield Fault(line, "row", "has more values than the first line has columns: put those with commas in quotes")
        return
    given = {name: value for name, value in row.items() if value is not None and (value or name in _NEEDED)}
    try:
        customer = NewCustomer.model_validate_strings(given)
    except ValidationError as error:
        yield from (Fault(line, field, reason) for field, reason in faults_of(error))
        return
    if (before := lines.setdefault(customer.id, line)) != line:
        yield Fault(line, "id", f"is that of line {before}: each customer once")
    else:
        yield customer


def _advice(detail: ErrorDetails) -> str:
    advice = _ADVICE.get(detail["type"])
    return detail["msg"] if advice is None else advice.format_map(detail.get("ctx", {}))

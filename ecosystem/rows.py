"""Messages as people write them down, in CSV: read row by row, and what is wrong is told with file, line and field."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.wire import Message

M = TypeVar("M", bound=Message)

MOST_SHOWN = 20
"""Faults of a file that are told; of more than these, how many."""

_ADVICE = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_unicode": "must be UTF-8",
    "int_parsing": "must be a whole number such as 15",
    "decimal_parsing": "must be an amount such as 9.90",
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

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        shown = [f"{name}:{fault}" for fault in faults[:MOST_SHOWN]]
        more = [f"and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
        super().__init__("\n".join([*shown, *more]))


def faults_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each field at fault, as its column is called, with what to do about it."""
    details = error.errors(include_url=False, include_input=False)
    return [(str(detail["loc"][0]), _advice(detail)) for detail in details]


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A CSV file in UTF-8. Bytes that are none become surrogates, which pydantic refuses: such a fault has a line."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield file


class Form(Generic[M]):
    """What the rows of a file hold: its first line names fields of `model`, in any order, each once.

    Arguments:
        model: of a row. Those of its fields may be left out that have a default.
        key: the field of which no two rows have the same.
        what: a row holds, for people.
    """

    def __init__(self, model: type[M], key: str, what: str) -> None:
        self.columns = tuple(str(field.alias) for field in model.model_fields.values())
        self._needed = tuple(str(field.alias) for field in model.model_fields.values() if field.is_required())
        self._model = model
        self._key = key
        self._what = what

    def rows(self, lines: Iterable[str]) -> Iterator[M | Fault]:
        """Each row that is sound, and what is wrong with the others. Nothing is read on if the first line is wrong."""
        reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
        seen = dict[str, int]()
        try:
            wrong = list(self._header(reader.fieldnames or ()))
            yield from wrong
            for row in () if wrong else reader:
                yield from self._row(row, reader.line_num, seen)
        except csv.Error as error:
            yield Fault(reader.reader.line_num, "row", f"is no CSV: {error}")

    def all(self, name: str, lines: Iterable[str]) -> list[M]:
        """All rows. Raises `BadFile` with all that is wrong; `name` is the file's."""
        found, faults = list[M](), list[Fault]()
        for row in self.rows(lines):
            if isinstance(row, Fault):
                faults.append(row)
            else:
                found.append(row)
        if faults:
            raise BadFile(name, faults)
        return found

    def _header(self, names: Sequence[str]) -> Iterator[Fault]:
        for name in self._needed:
            if name not in names:
                yield Fault(1, name, f"is missing: the first line names the columns, {','.join(self.columns)}")
        for number, name in enumerate(names):
            if name not in self.columns:
                yield Fault(1, repr(name), f"is no column: there are {', '.join(self.columns)}")
            elif name in names[:number]:
                yield Fault(1, name, "is there twice")

    def _row(self, row: dict[str, str | None], line: int, seen: dict[str, int]) -> Iterator[M | Fault]:
        if None in row:
            yield Fault(line, "row", "has more values than the first line has columns: put those with commas in quotes")
            return
        given = {name: value for name, value in row.items() if value is not None and (value or name in self._needed)}
        try:
            found = self._model.model_validate_strings(given)
        except ValidationError as error:
            yield from (Fault(line, field, reason) for field, reason in faults_of(error))
            return
        if (before := seen.setdefault(str(getattr(found, self._key)), line)) != line:
            yield Fault(line, self._key, f"is that of line {before}: each {self._what} once")
        else:
            yield found


def _advice(detail: ErrorDetails) -> str:
    advice = _ADVICE.get(detail["type"])
    return detail["msg"] if advice is None else advice.format_map(detail.get("ctx", {}))

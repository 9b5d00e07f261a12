"""Messages as people write them down, in CSV: read row by row, and what is wrong is told with file, line and field."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, TextIO, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.numbers import decimal, whole
from schemas.wire import Message

M = TypeVar("M", bound=Message)

MOST_SHOWN = 20
"""Faults of a file that are told; of more than these, how many."""

_ADVICE = {
    "missing": "is missing",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_unicode": "must be UTF-8",
    "value_error": "{error}",
    "decimal_max_places": "must have at most {decimal_places} digits after the point",
    "decimal_max_digits": "must have at most {max_digits} digits in all",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the point",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "enum": "must be {expected}",
}
"""By pydantic's type of error; others go through in its own words."""


@dataclass(frozen=True, slots=True)
class CsvError:
    """What is wrong in a file: where (the line a row ends in; the field as its column is called) and what to do."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.line}: {self.field} {self.reason}"


class BadFile(Exception):
    """A file with faults: a line for each of the first, each with file and line."""

    def __init__(self, name: str, faults: Sequence[CsvError]) -> None:
        shown = [f"{name}:{fault}" for fault in faults[:MOST_SHOWN]]
        more = [f"and {len(faults) - MOST_SHOWN} more"] if len(faults) > MOST_SHOWN else []
        super().__init__("\n".join([*shown, *more]))


def faults_of(error: ValidationError) -> list[tuple[str, str]]:
    """Each field at fault, as its column is called, with what to do about it."""
    details = error.errors(include_url=False, include_input=False)
    return [(str(detail["loc"][0]) if detail["loc"] else "", _advice(detail)) for detail in details]


_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
"""What other programs call CSV, too: spreadsheets where the comma is in numbers."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A CSV file, as `text_of` reads it."""
    with path.open("rb") as file:
        yield text_of(file)


def text_of(file: BinaryIO) -> TextIO:
    """The text of a file in UTF-8, or in UTF-16 if it begins with a byte order mark.

    Bytes that are no UTF-8 become surrogates, which pydantic refuses: such a fault has a line.
    """
    reader = cast("io.BufferedReader", file)
    start = reader.peek(3)[:3]
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    if encoding == "utf-8":
        return io.TextIOWrapper(reader, "utf-8-sig", errors="surrogateescape", newline="")
    return io.TextIOWrapper(reader, encoding, newline="")


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
        readers: dict[Any, Any] = {int: whole, Decimal: partial(decimal, noun="an amount")}
        self._numbers = {
            str(field.alias): readers[field.annotation]
            for field in model.model_fields.values()
            if field.annotation in readers
        }
        self._model = model
        self._key = key
        self._what = what

    def rows(self, lines: Iterable[str]) -> Iterator[M | CsvError]:
        """Each row that is sound, and what is wrong with the others. Nothing is read on if the first line is wrong."""
        reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
        seen = dict[str, int]()
        try:
            wrong = list(self._header(reader.fieldnames or ()))
            yield from wrong
            for row in () if wrong else reader:
                yield from self._row(row, reader.line_num, seen)
        except csv.Error as error:
            hint = "; is the quote missing that ends a text?" if "limit" in str(error) else ""
            yield CsvError(reader.reader.line_num, "row", f"is no CSV: {error}{hint}")
        except UnicodeDecodeError as error:
            yield CsvError(reader.reader.line_num + 1, "row", f"must be {error.encoding.upper()}: {error.reason}")

    def all(self, name: str, lines: Iterable[str]) -> list[M]:
        """All rows. Raises `BadFile` with all that is wrong; `name` is the file's."""
        found, faults = list[M](), list[CsvError]()
        for row in self.rows(lines):
            if isinstance(row, CsvError):
                faults.append(row)
            else:
                found.append(row)
        if faults:
            raise BadFile(name, faults)
        return found

    def _header(self, names: Sequence[str]) -> Iterator[CsvError]:
        hint = f"the first line names the columns, {','.join(self.columns)}"
        other = next(
            (mark for mark in _SEPARATORS if len(names) == 1 and set(names[0].split(mark)) >= {*self._needed}), ""
        )
        if other:
            hint = f"the columns are separated by {_SEPARATORS[other]}; separate them by commas"
        for name in self._needed:
            if name not in names:
                yield CsvError(1, name, f"is missing: {hint}")
        for number, name in enumerate(() if other else names):
            if name not in self.columns:
                yield CsvError(1, repr(name), f"is no column: there are {', '.join(self.columns)}")
            elif name in names[:number]:
                yield CsvError(1, name, "is there twice")

    def _row(self, row: dict[str, str | None], line: int, seen: dict[str, int]) -> Iterator[M | CsvError]:
        if not any(value and "".join(value).strip() for value in row.values()):
            return  # spreadsheets end a file with rows of commas
        if None in row:
            yield CsvError(
                line,
                "row",
                "has more values than the first line has columns: put text with commas in quotes, write 9.90 for 9,90",
            )
            return
        given: dict[str, Any] = {}
        faults = list[CsvError]()
        for name, value in row.items():
            if value is None or not (value or name in self._needed):
                continue
            try:
                read = self._numbers.get(name)
                given[name] = value if read is None else read(value.strip(" "))
            except ValueError as error:
                given[name] = None
                faults.append(CsvError(line, name, str(error)))
        try:
            found = self._model.model_validate(given)
        except ValidationError as error:
            known = {fault.field for fault in faults}
            faults += [CsvError(line, field, reason) for field, reason in faults_of(error) if field not in known]
        if faults:
            yield from faults
            return
        if (before := seen.setdefault(str(getattr(found, self._key)), line)) != line:
            yield CsvError(line, self._key, f"is that of line {before}: each {self._what} once")
        else:
            yield found


def _advice(detail: ErrorDetails) -> str:
    advice = _ADVICE.get(detail["type"])
    return detail["msg"] if advice is None else advice.format_map(detail.get("ctx", {}))

"""Reads messages from CSV files row by row; errors name file, line and field."""

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

from schemas.numbers import decimal, whole
from schemas.validation import field_errors
from schemas.wire import Message

M = TypeVar("M", bound=Message)

MAX_ERRORS_SHOWN = 20
"""Errors of a file that are shown; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class CsvError:
    """An error in a file: the line in which the row ends, the column, and what to do."""

    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.line}: {self.field} {self.reason}"


class InvalidFile(Exception):
    """A file with errors. The text has one line for each of the first, with file and line."""

    def __init__(self, name: str, errors: Sequence[CsvError]) -> None:
        shown = [f"{name}:{error}" for error in errors[:MAX_ERRORS_SHOWN]]
        more = [f"and {len(errors) - MAX_ERRORS_SHOWN} more"] if len(errors) > MAX_ERRORS_SHOWN else []
        super().__init__("\n".join([*shown, *more]))


_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
"""Separators of other programs that call their files CSV, such as spreadsheets with decimal commas."""


@contextmanager
def open_csv(path: Path) -> Iterator[TextIO]:
    """Opens a CSV file; see `decoded`."""
    with path.open("rb") as file:
        yield decoded(file)


def decoded(file: BinaryIO) -> TextIO:
    """Decodes a file in UTF-8, or in UTF-16 if it begins with a byte order mark.

    Bytes that are no UTF-8 become surrogates, which pydantic rejects: so the error has a line.
    """
    reader = cast("io.BufferedReader", file)
    start = reader.peek(3)[:3]
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")
    if encoding == "utf-8":
        return io.TextIOWrapper(reader, "utf-8-sig", errors="surrogateescape", newline="")
    return io.TextIOWrapper(reader, encoding, newline="")


class CsvSchema(Generic[M]):
    """The columns of a CSV file. Its first line names fields of `model`, in any order, each once.

    Arguments:
        model: model of a row. Fields with a default may be left out.
        key: field whose value must be unique in the file.
        noun: what a row is called in error texts.
    """

    def __init__(self, model: type[M], key: str, noun: str) -> None:
        self.columns = tuple(str(field.alias) for field in model.model_fields.values())
        self._required = tuple(str(field.alias) for field in model.model_fields.values() if field.is_required())
        parsers: dict[Any, Any] = {int: whole, Decimal: partial(decimal, noun="an amount")}
        self._numbers = {
            str(field.alias): parsers[field.annotation]
            for field in model.model_fields.values()
            if field.annotation in parsers
        }
        self._model = model
        self._key = key
        self._noun = noun

    def rows(self, lines: Iterable[str]) -> Iterator[M | CsvError]:
        """Yields each valid row, and the errors of the others. Stops if the first line is wrong."""
        reader = csv.DictReader(lines, strict=True, skipinitialspace=True)
        seen = dict[str, int]()
        try:
            header_errors = list(self._header_errors(reader.fieldnames or ()))
            yield from header_errors
            for row in () if header_errors else reader:
                yield from self._row(row, reader.line_num, seen)
        except csv.Error as error:
            hint = "; is the quote missing that ends a text?" if "limit" in str(error) else ""
            yield CsvError(reader.reader.line_num, "row", f"is no CSV: {error}{hint}")
        except UnicodeDecodeError as error:
            yield CsvError(reader.reader.line_num + 1, "row", f"must be {error.encoding.upper()}: {error.reason}")

    def read_all(self, name: str, lines: Iterable[str]) -> list[M]:
        """Returns all rows of the file called `name`. Raises `InvalidFile` with all errors in it."""
        found, errors = list[M](), list[CsvError]()
        for row in self.rows(lines):
            if isinstance(row, CsvError):
                errors.append(row)
            else:
                found.append(row)
        if errors:
            raise InvalidFile(name, errors)
        return found

    def _header_errors(self, names: Sequence[str]) -> Iterator[CsvError]:
        hint = f"the first line names the columns, {','.join(self.columns)}"
        other_separator = ""
        if len(names) == 1:
            candidates = (sep for sep in _SEPARATORS if set(names[0].split(sep)) >= set(self._required))
            other_separator = next(candidates, "")
        if other_separator:
            hint = f"the columns are separated by {_SEPARATORS[other_separator]}; separate them by commas"
        for name in self._required:
            if name not in names:
                yield CsvError(1, name, f"is missing: {hint}")
        for number, name in enumerate(() if other_separator else names):
            if name not in self.columns:
                yield CsvError(1, repr(name), f"is not a column: the columns are {', '.join(self.columns)}")
            elif name in names[:number]:
                yield CsvError(1, name, "occurs twice")

    def _row(self, row: dict[str, str | None], line: int, seen: dict[str, int]) -> Iterator[M | CsvError]:
        if not any(value and "".join(value).strip() for value in row.values()):
            return  # spreadsheets end a file with rows of separators only
        if None in row:
            yield CsvError(
                line,
                "row",
                "has more values than the first line has columns: put text with commas in quotes, write 9.90 for 9,90",
            )
            return
        given: dict[str, Any] = {}
        errors = list[CsvError]()
        for name, value in row.items():
            if value is None or not (value or name in self._required):
                continue
            try:
                parse = self._numbers.get(name)
                given[name] = value if parse is None else parse(value.strip(" "))
            except ValueError as error:
                given[name] = None
                errors.append(CsvError(line, name, str(error)))
        try:
            found = self._model.model_validate(given)
        except ValidationError as invalid:
            known = {error.field for error in errors}
            errors += [CsvError(line, e.field, e.reason) for e in field_errors(invalid, "row") if e.field not in known]
        if errors:
            yield from errors
            return
        if (before := seen.setdefault(str(getattr(found, self._key)), line)) != line:
            yield CsvError(line, self._key, f"occurs in line {before} already: each {self._noun} must occur once")
        else:
            yield found

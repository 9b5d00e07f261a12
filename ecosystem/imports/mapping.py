"""The mapping of a legacy source: which columns become which fields of a message. A TOML file.

>>> rule = FieldRule.model_validate({"column": "BETRAG", "digits": 2})
>>> rule.convert({"BETRAG": "0001250"})
'12.50'
"""

import tomllib
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from ecosystem.imports.errors import ImportStopped
from schemas.topics import CUSTOMERS, PAYMENTS, WAREHOUSE_INVENTORY, Topic
from schemas.validation import field_errors

Columns = Mapping[str, str]
"""A row of the source: text by column. A column without a value is absent."""

TARGETS: dict[str, Topic[Any]] = {topic.name: topic for topic in (CUSTOMERS, PAYMENTS, WAREHOUSE_INVENTORY)}
"""Topics that systems outside write to. The others belong to a service, which alone writes to them."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldRule(_Model):
    """How a field of the message is made of a column.

    Arguments:
        column: name of the column.
        constant: the value, instead of a column.
        prefix: text before the value.
        comma: whether numbers have a decimal comma.
        digits: numbers have no point, and this many digits after it: `0001250` is 12.50 with 2.
        values: what the values of the column mean. Other values are refused.
    """

    column: str | None = None
    constant: str | None = None
    prefix: str = ""
    comma: bool = False
    digits: Annotated[int, Field(ge=0, le=10)] | None = None
    values: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "FieldRule":
        if (self.column is None) == (self.constant is None):
            raise ValueError("must have either a column or a constant")
        return self

    def convert(self, columns: Columns) -> str | None:
        """Returns the value as text; `None` if the column has none. Raises `ValueError` as `schemas.numbers` does."""
        if self.column is None:
            return self.constant
        text = columns.get(self.column, "").strip()
        if not text:
            return None
        if self.values is not None:
            if text not in self.values:
                raise ValueError(f"must be one of {', '.join(self.values)}")
            text = self.values[text]
        if self.digits is not None:
            text = _with_point(text, self.digits)
        elif self.comma:
            text = text.replace(",", ".", 1)
        return self.prefix + unicodedata.normalize("NFC", text)


def _with_point(text: str, digits: int) -> str:
    number = text.removeprefix("-")
    if not (number.isascii() and number.isdigit() and len(number) <= 40):
        raise ValueError("must be digits only")
    return f"{Decimal(text.replace(number, '') + number).scaleb(-digits):f}"


class FileSource(_Model):
    """Files of rows, one row a line, to which the legacy system appends, or which it adds to a folder.

    Arguments:
        kind: `csv`, or `fixed-width`.
        files: pattern of their names, relative to the mapping file.
        encoding: one in which a line feed is the byte 10.
        separator: of columns in CSV.
        columns: in CSV, their names, for files whose first line does not have them. With fixed width, the first and the
            last position of each column, from 1.
    """

    kind: Literal["csv", "fixed-width"]
    files: str
    encoding: str = "utf-8"
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    columns: tuple[str, ...] | dict[str, tuple[int, int]] | None = None

    @field_validator("encoding")
    @classmethod
    def _one_byte_line_feed(cls, value: str) -> str:
        try:
            if "\n".encode(value) == b"\n" and "1;".encode(value) == b"1;":
                return value
        except LookupError:
            pass
        raise ValueError(f"{value!r} is no encoding such as utf-8, cp1252 or cp850")

    @model_validator(mode="after")
    def _columns_of_kind(self) -> "FileSource":
        positions = self.columns if isinstance(self.columns, dict) else None
        if (self.kind == "fixed-width") != (positions is not None):
            raise ValueError(
                "columns: fixed width needs positions, as in columns.NAME = [1, 10]; CSV needs names, or none"
            )
        if wrong := [name for name, (first, last) in (positions or {}).items() if not 1 <= first <= last]:
            raise ValueError(f"columns: {', '.join(wrong)} must be [first, last], from 1")
        return self


class TableSource(_Model):
    """A table of a legacy PostgreSQL, watched through a queue that a trigger fills (`ecosystem/imports/queue.sql`)."""

    kind: Literal["table"]
    table: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,40}(\.[a-z_][a-z0-9_]{0,40})?$")]


def _rule(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


class ImportMapping(_Model):
    """A mapping file.

    Arguments:
        name: of the import. Its position is kept under this name.
        topic: the target.
        source: files or a table.
        fields: rules by field of the message, as on the wire. Text stands for a column.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,50}$")]
    topic: str
    source: Annotated[FileSource | TableSource, Field(discriminator="kind")]
    fields: dict[str, Annotated[FieldRule, BeforeValidator(_rule)]]

    @model_validator(mode="after")
    def _fields_of_topic(self) -> "ImportMapping":
        if self.topic not in TARGETS:
            raise ValueError(f"topic must be one of {', '.join(TARGETS)}: services write to the others")
        known = {str(f.alias): f.is_required() for f in self.target.model.model_fields.values()}
        if unknown := [name for name in self.fields if name not in known]:
            raise ValueError(f"fields: {', '.join(unknown)} is no field of {self.topic}: they are {', '.join(known)}")
        if missing := [name for name, required in known.items() if required and name not in self.fields]:
            raise ValueError(f"fields: {', '.join(missing)} of {self.topic} is missing: name a column or a constant")
        return self

    @property
    def target(self) -> Topic[Any]:
        """The topic that messages are written to."""
        return TARGETS[self.topic]


def load(path: Path) -> ImportMapping:
    """Reads a mapping file. Raises `ImportStopped` with all errors in it."""
    try:
        return ImportMapping.model_validate(tomllib.loads(path.read_text("utf-8")))
    except ValidationError as error:
        raise ImportStopped("\n".join(f"{path}: {invalid}" for invalid in field_errors(error, "mapping"))) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImportStopped(f"{path}: no TOML: {error}") from error
    except OSError as error:
        raise ImportStopped(f"{path}: {error.strerror}") from error

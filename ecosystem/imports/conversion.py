"""Makes messages of rows by the rules of a mapping. Pure."""

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

from pydantic import ValidationError

from ecosystem.imports.mapping import Columns, ImportMapping
from schemas.numbers import decimal, whole
from schemas.validation import field_errors
from schemas.wire import Message

_PARSERS: dict[Any, Callable[[str], Any]] = {int: whole, Decimal: partial(decimal, noun="an amount"), float: decimal}


class InvalidRow(Exception):
    """A row from which no message can be made. The text names the fields and the remedy."""


class Converter:
    """Makes messages of the target of a mapping."""

    def __init__(self, mapping: ImportMapping) -> None:
        model = mapping.target.model
        self._model: type[Message] = model
        self._rules = mapping.fields
        kinds = {str(field.alias): field.annotation for field in model.model_fields.values()}
        self._parsers = {name: _PARSERS.get(kinds[name], str) for name in mapping.fields}

    def convert(self, columns: Columns) -> Message:
        """Returns the message of a row. Raises `InvalidRow`, which names every invalid field."""
        given: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for name, rule in self._rules.items():
            if rule.column is not None and rule.column not in columns:
                errors[name] = f"has no column {rule.column} in the source"
                continue
            try:
                if (text := rule.convert(columns)) is not None:
                    given[name] = self._parsers[name](text)
            except ValueError as error:
                errors[name] = str(error)
        try:
            message = self._model.model_validate(given)
        except ValidationError as invalid:
            errors |= {e.field: e.reason for e in field_errors(invalid, "row") if e.field not in errors}
        if errors:
            raise InvalidRow("; ".join(f"{self._place(name)} {reason}" for name, reason in errors.items()))
        return message

    def _place(self, field: str) -> str:
        """Names a field as both sides know it."""
        rule = self._rules.get(field)
        return field if rule is None or rule.column in {None, field} else f"{field} (column {rule.column})"

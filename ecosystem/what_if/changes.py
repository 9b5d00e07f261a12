"""Settings to change: `NAME=value`, validated as a worker validates its environment."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ecosystem import services
from ecosystem.what_if.variant import deciding
from runtime.common.settings import ServiceSettings, Settings
from runtime.hosting import ServiceDefinition
from schemas.messages import Need
from schemas.validation import field_errors

_ELSEWHERE = ("_database_url", "_port")
"""Endings of settings that say where a service is, not what it decides."""


class InvalidChange(ValueError):
    """A setting cannot be changed in this way. The text names it and the remedy."""


def build(settings: Settings) -> list[ServiceDefinition]:
    """Builds the services that have a part in how orders end."""
    return deciding(services.build_all(settings))


def changeable(definitions: Iterable[ServiceDefinition]) -> Mapping[str, type[ServiceSettings]]:
    """Returns the settings of these services by field. Others do not change how an order ends."""
    return {
        field: kind
        for definition in definitions
        for kind in services.SETTINGS.get(definition.service.name, ())
        for field in kind.model_fields
        if not field.endswith(_ELSEWHERE)
    }


def parse(texts: Iterable[str]) -> dict[str, Any]:
    """Returns the fields and values of settings given as `NAME=value`. Raises `InvalidChange`."""
    known = changeable(build(Settings()))
    changes: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        field = name.strip().lower()
        if not separator:
            raise InvalidChange(f"{text!r} has no value: write a setting as NAME=value, such as FRAUD_LIMIT=1500")
        if field not in known:
            raise InvalidChange(
                f"{name} does not change how an order ends. Those that do: {', '.join(sorted(known)).upper()}"
            )
        if field in changes:
            raise InvalidChange(f"{field.upper()} is given twice: write it once")
        changes[field] = value
    _validate(changes, known)
    return changes


def _validate(changes: Mapping[str, Any], known: Mapping[str, type[ServiceSettings]]) -> None:
    for field in changes:
        try:
            Settings(**{field: changes[field]}).of(known[field])
        except ValidationError as error:
            reasons = [invalid.reason for invalid in field_errors(error) if invalid.field.startswith(field)]
            if reasons:
                raise InvalidChange(f"{field.upper()} {reasons[0]}") from None
            raise  # a variable of the environment is wrong
    try:
        build(Settings(**changes))
    except ValidationError:
        raise
    except ValueError as error:
        raise InvalidChange(f"{', '.join(changes).upper()}: {error}; the needs are {', '.join(Need)}") from None

"""Base of all settings: environment variables, and files that hold secrets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from schemas import numbers

T = TypeVar("T")

_FILE = "_FILE"


def config(extra: Literal["allow", "forbid"]) -> SettingsConfigDict:
    """Configuration of a settings class. Errors never show the input, which may be a secret."""
    return SettingsConfigDict(frozen=True, extra=extra, hide_input_in_errors=True)


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
"""Several values in one variable, with commas between them."""


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """Stands for the value of a secret that could not be read from its file."""

    reason: str


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads a secret from the file that `<VARIABLE>_FILE` names, as platforms mount secrets."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if "SecretStr" not in repr(field.annotation):
            return None, field_name, False
        variable = field_name.upper()
        path = os.environ.get(variable + _FILE)
        if not path:
            return None, field_name, False
        if os.environ.get(variable):
            return _Unreadable(f"is set, and so is {variable}{_FILE}: unset one of them"), field_name, False
        try:
            return Path(path).read_text("utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            return _Unreadable(f"cannot be read from {path}, as {variable}{_FILE} says: {why}"), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class ServiceSettings(BaseSettings):
    """Base of the settings of a service. Each field is an environment variable of the same name in capitals.

    A service declares its own subclass, and `build` reads it by `settings.of(...)`. The field `<service>_database_url`
    names the service's database, `<service>_port` the default port of a worker that runs the service alone. A secret
    may also be in a file, which the variable with the suffix `_FILE` names.
    """

    model_config = config(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _SecretFiles(settings_cls), env_settings

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, _Unreadable):
            raise ValueError(value.reason)  # noqa: TRY004 - pydantic reports values by it
        if not isinstance(value, str) or info.field_name is None:
            return value
        kind = cls.model_fields[info.field_name].annotation
        if kind is int:
            return numbers.whole(value)
        return numbers.decimal(value) if kind is float else value


def given(info: ValidationInfo, name: str) -> Any:
    """The value of an earlier field, as a validator of a later one sees it; `None` if it is invalid."""
    data: Mapping[str, Any] = info.data
    return data.get(name)


def empty_as_none(value: object) -> object:
    """Treats an empty variable as unset, which is how compose files pass on what nobody has set."""
    return None if value == "" else value

"""Settings of one PostgreSQL server for the databases of all services."""

from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from runtime.common.base_settings import ServiceSettings, empty_as_none, given

_URL = "_database_url"


class SslMode(StrEnum):
    """libpq's, without those that may send a password in the clear."""

    DISABLE = "disable"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class DatabaseSettings(ServiceSettings):
    """One server, user and password for the databases of all services: `<DB_NAME>_<service>` each.

    `<SERVICE>_DATABASE_URL` has precedence.
    """

    db_host: str | None = Field(
        default=None, description="PostgreSQL server of all services that have no `…_DATABASE_URL`"
    )
    db_port: int = Field(default=5432, ge=1, le=65535, description="Port of the PostgreSQL server")
    db_name: str = Field(
        default="orders",
        pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,47}$",
        description="Prefix of the databases, `<DB_NAME>_checkin` and so on; created if they do not exist",
    )
    db_user: str | None = Field(
        default=None, validate_default=True, description="Login name; it owns, and may create, the databases"
    )
    db_password: SecretStr | None = Field(default=None, validate_default=True, description="Password of DB_USER")
    db_sslmode: SslMode = Field(
        default=SslMode.REQUIRE, description="`require`, `verify-ca`, `verify-full`, or `disable` for a local server"
    )
    db_sslrootcert: Path | None = Field(
        default=None,
        validate_default=True,
        description="CA certificates that sign the server's, PEM; needed by `verify-ca` and `verify-full`",
    )

    @field_validator("db_host", "db_user", "db_password", "db_sslrootcert", mode="before")
    @classmethod
    def _unset_database(cls, value: object) -> object:
        return empty_as_none(value)

    @field_validator("db_user", "db_password")
    @classmethod
    def _with_host(cls, value: Any, info: ValidationInfo) -> Any:
        if given(info, "db_host") is not None and value is None:
            raise ValueError("is missing: DB_HOST needs DB_USER and DB_PASSWORD")
        return value

    @field_validator("db_sslrootcert")
    @classmethod
    def _verifiable(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        mode = given(info, "db_sslmode")
        if value is None and mode in {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}:
            raise ValueError(f"is missing: DB_SSLMODE={mode} needs a file of CA certificates")
        if value is not None and not value.is_file():
            raise ValueError(f"names no file: {value}")
        return value

    def database_url(self, service: str) -> SecretStr | None:
        """The URL of a service's database on the server of `DB_HOST`; `None` without one.

        Arguments:
            service: name of the service, as in `<service>_database_url`.
        """
        if self.db_host is None or self.db_user is None or self.db_password is None:
            return None
        user, password = quote(self.db_user, safe=""), quote(self.db_password.get_secret_value(), safe="")
        query = {"sslmode": self.db_sslmode.value}
        if self.db_sslrootcert is not None:
            query["sslrootcert"] = str(self.db_sslrootcert)
        host = f"[{self.db_host}]" if ":" in self.db_host else self.db_host
        return SecretStr(
            f"postgresql://{user}:{password}@{host}:{self.db_port}/{self.db_name}_{service}?{urlencode(query)}"
        )

    def database_urls(self, kind: type[ServiceSettings]) -> dict[str, SecretStr]:
        """The URLs on the server of `DB_HOST`, by the fields of a settings class that name databases."""
        services = [name.removesuffix(_URL) for name in kind.model_fields if name.endswith(_URL)]
        return {f"{s}{_URL}": url for s in services if (url := self.database_url(s)) is not None}

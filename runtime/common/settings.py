"""Settings of a worker and of its services, from environment variables of the same names in capitals.

>>> class PrinterSettings(ServiceSettings):
...     printer_pages: int = Field(default=1, ge=1, description="Pages per order")
>>> Settings(printer_pages=2).of(PrinterSettings).printer_pages
2
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode
from yarl import URL

from runtime.common import failpoints
from runtime.common.base_settings import CommaSeparated, ServiceSettings, config
from runtime.common.database_settings import DatabaseSettings
from runtime.common.kafka_settings import KafkaSettings
from schemas.addresses import mailbox

__all__ = [
    "CommaSeparated",
    "Guarantee",
    "OnLostRecords",
    "ServiceSettings",
    "Settings",
    "SmtpSecurity",
    "settings_classes",
]

S = TypeVar("S", bound=ServiceSettings)


class Guarantee(StrEnum):
    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class SmtpSecurity(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class OnLostRecords(StrEnum):
    CONTINUE = "continue"
    STOP = "stop"


class Settings(KafkaSettings, DatabaseSettings):
    """What the runtime itself needs. `of` returns the settings of a service.

    Keywords override the environment. Those that are no field of the runtime are meant for services, and must be a
    field of a settings class that is imported.
    """

    model_config = config(extra="allow")

    topic_prefix: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", description="Prefix of every topic and consumer group"
    )
    partitions: int = Field(default=4, ge=1, le=1000, description="Partitions of every topic; fixed once they exist")
    replication_factor: int = Field(
        default=1, ge=1, description="Replicas of topics that the worker creates; 3 in a cluster"
    )
    processing_guarantee: Guarantee = Field(
        default=Guarantee.EXACTLY_ONCE, description="`exactly_once` or `at_least_once`"
    )

    catch_up: CommaSeparated[str] = Field(
        default=(),
        description="Services that process the history of topics that they have never read, comma separated",
    )

    http_host: str = Field(default="127.0.0.1", description="Address to listen on")
    http_allowed_hosts: CommaSeparated[str] = Field(
        default=(),
        description="Names by which requests may ask for a worker on the loopback interface, besides localhost, "
        "loopback addresses and the host of `ADVERTISED_URL`, comma separated: what a proxy on this machine passes on",
    )
    http_port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one")
    http_fast_path: bool = Field(
        default=True,
        description="Answer the most frequent requests without aiohttp's application, which costs half as much",
    )
    advertised_url: str | None = Field(
        default=None, description="Base URL at which other workers reach this one; default from host and port"
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, description="Largest request body, bytes")
    max_requests: int = Field(
        default=10_000, ge=1, description="Concurrent requests, reads and writes apart; more are answered 503"
    )
    worker_keys: CommaSeparated[SecretStr] = Field(
        default=(), description="Keys that authenticate worker-to-worker calls, comma separated; the first one signs"
    )

    state_dir: Path = Field(default=Path(".data/state"), description="Where RocksDB keeps the tables")
    state_cache_mb: int = Field(
        default=16, ge=1, description="RocksDB's block cache, which all stores of a worker share, MiB"
    )
    state_write_buffer_kb: int = Field(
        default=1024, ge=64, description="A RocksDB write buffer, KiB; each table and partition has one, at times two"
    )

    standby_replicas: int = Field(default=1, ge=0, description="Standby replicas of each partition's state; 0 for none")

    session_timeout_s: float = Field(
        default=10.0, ge=1, description="Seconds without a heartbeat after which the group removes a worker"
    )
    heartbeat_interval_s: float = Field(default=2.0, gt=0, description="Seconds between two heartbeats of a worker")
    transaction_timeout_s: float = Field(
        default=10.0,
        ge=1,
        description="Seconds after which the broker aborts an open transaction: it holds back readers until then",
    )
    watchdog_s: float = Field(
        default=60.0,
        ge=5,
        description="Seconds without progress although there is work, after which the worker ends with code 1",
    )
    on_lost_records: OnLostRecords = Field(
        default=OnLostRecords.CONTINUE,
        description="`continue` or `stop`, when the broker has removed records before they were read",
    )
    batch_limit: int = Field(
        default=500, ge=1, description="Records per batch at most: HTTP requests wait while a batch is processed"
    )
    produce_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds after which an unacknowledged POST is answered 503"
    )

    database_pool: int = Field(default=5, ge=1, description="Database connections per service and worker")
    database_timeout_s: float = Field(
        default=5.0, gt=0, description="Seconds after which a request that waits for the database is answered 503"
    )

    side_effect_timeout_s: float = Field(
        default=3 * 24 * 3600.0,
        gt=0,
        description="Seconds after which an e-mail or database row that keeps failing is dead-lettered",
    )
    side_effect_longest_pause_s: float = Field(
        default=900.0, ge=1, description="Seconds, the longest pause between two attempts at an e-mail or database row"
    )

    mail_from: str = Field(default="Orders <orders@example.com>", description="Sender of e-mails")
    smtp_host: str = Field(default="127.0.0.1", description="Mail server")
    smtp_port: int = Field(
        default=1025, ge=1, le=65535, description="Port of the mail server: usually 587 with STARTTLS, 465 with TLS"
    )
    smtp_security: SmtpSecurity = Field(default=SmtpSecurity.NONE, description="`none`, `starttls` or `tls`")
    smtp_ca_file: Path | None = Field(default=None, description="Certificates to trust instead of the system's, PEM")
    smtp_user: str | None = Field(default=None, description="Login name, with SMTP_PASSWORD")
    smtp_password: SecretStr | None = Field(default=None, description="See SMTP_USER")
    smtp_timeout_s: float = Field(
        default=20.0,
        gt=0,
        description="Seconds for each reply of the server, except to a message: ten minutes (RFC 5321)",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="`debug`, `info`, `warning` or `error`"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="`text` or `json`")

    build_revision: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._+-]{0,64}$",
        description="Revision of the source that this worker runs, such as a commit: shown in its metrics",
    )

    fail_points: Annotated[tuple[failpoints.Trigger, ...], NoDecode] = Field(
        default=(), description="For tests: steps at which to crash or pause, see `runtime/common/failpoints.py`"
    )

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str) -> str:
        try:
            mailbox(value)
        except ValueError:
            raise ValueError(f"{value!r} is no address such as Orders <orders@example.com>") from None
        return value

    @field_validator("advertised_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if not value:
            return None
        url = URL(value)
        more = url.path.strip("/") or url.query_string or url.fragment or url.user or url.password
        if url.scheme not in {"http", "https"} or not url.host or more:
            raise ValueError(f"{value!r} is no base URL such as http://orders-1:8080")
        return value

    @field_validator("fail_points", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return failpoints.parse(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _known(self) -> "Settings":
        known = {name for kind in settings_classes() for name in kind.model_fields}
        if unknown := [name for name in self.model_extra or {} if name not in known]:
            raise ValueError(f"no settings class that is imported has the field {', '.join(map(repr, unknown))}")
        return self

    def of(self, kind: type[S]) -> S:
        """Returns the settings of a service, from the environment and the keywords that were given here.

        A database without a URL of its own is on the server of `DB_HOST`, if there is one.
        """
        overrides: dict[str, Any] = {n: v for n, v in (self.model_extra or {}).items() if n in kind.model_fields}
        own = kind(**overrides)
        missing = {name: url for name, url in self.database_urls(kind).items() if getattr(own, name) is None}
        return own.model_copy(update=missing) if missing else own

    @property
    def at_least_once(self) -> bool:
        """Whether a crash in a commit repeats a batch of which some writes are visible already."""
        return self.processing_guarantee is Guarantee.AT_LEAST_ONCE

    @property
    def stall_after_s(self) -> float:
        """`watchdog_s`, or longer where waiting for a dead worker's session or transaction takes longer."""
        return max(self.watchdog_s, 2 * self.session_timeout_s, 2 * self.transaction_timeout_s)

    def base_url(self, port: int) -> URL:
        """The URL at which other workers reach this one, which listens on `port`."""
        if self.advertised_url:
            return URL(self.advertised_url)
        return URL.build(scheme="http", host=self.http_host, port=port)


def settings_classes(base: type[ServiceSettings] = ServiceSettings) -> Iterator[type[ServiceSettings]]:
    """Yields `Settings` and the settings classes of services, as far as they are imported."""
    for kind in base.__subclasses__():
        yield kind
        yield from settings_classes(kind)

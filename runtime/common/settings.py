"""Settings of a worker, from environment variables of the same names in capitals."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from yarl import URL

from runtime.common import failpoints
from schemas import numbers
from schemas.addresses import address, mailbox
from schemas.money import currency


class Guarantee(StrEnum):
    EXACTLY_ONCE = "exactly_once"
    AT_LEAST_ONCE = "at_least_once"


class SmtpSecurity(StrEnum):
    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class UnknownProducts(StrEnum):
    FAIL = "fail"
    PASS = "pass"


class OnLostRecords(StrEnum):
    CONTINUE = "continue"
    STOP = "stop"


class Settings(BaseSettings):
    """Everything that differs between workers or deployments."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="Brokers, host:port, comma separated")
    topic_prefix: str = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", description="Prefix of every topic and consumer group"
    )
    partitions: int = Field(default=4, ge=1, le=1000, description="Partitions of every topic; fixed once they exist")
    replication_factor: int = Field(
        default=1, ge=1, description="Replicas of topics that the worker creates; 3 in a cluster"
    )
    processing_guarantee: Guarantee = Guarantee.EXACTLY_ONCE

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one")
    advertised_url: str | None = Field(
        default=None, description="Base URL at which other workers reach this one; default from host and port"
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, description="Largest request body, bytes")
    max_requests: int = Field(
        default=10_000, ge=1, description="Concurrent requests, reads and writes apart; more are answered 503"
    )
    worker_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="Keys that authenticate worker-to-worker calls, comma separated; the first one signs"
    )

    state_dir: Path = Field(default=Path(".data/state"), description="Where RocksDB keeps the tables")
    state_memory_mb: int = Field(
        default=4, ge=1, description="RocksDB write buffers and cache, MiB per table and partition"
    )

    standby_replicas: int = Field(default=1, ge=0, description="Standby replicas of each partition's state; 0 for none")

    session_timeout_s: float = Field(
        default=10.0, ge=1, description="Seconds without a heartbeat after which the group removes a worker"
    )
    heartbeat_interval_s: float = Field(default=2.0, gt=0)
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
    batch_limit: int = Field(default=2000, ge=1, description="Records per batch at most")
    produce_timeout_s: float = Field(
        default=10.0, gt=0, description="Seconds after which an unacknowledged POST is answered 503"
    )

    currency: str = Field(
        default="EUR",
        description="ISO 4217 code of the currency of all orders; payments in others do not count",
    )

    required_checks: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("FRAUD_CHECK", "INVENTORY_CHECK", "ORDER_DETAILS_CHECK"),
        description="Checks an order must pass, comma separated",
    )
    validation_deadline_s: float = Field(
        default=60.0, gt=0, description="Seconds after which missing verdicts fail an order"
    )
    fraud_limit: float = Field(
        default=2000, gt=0, description="Total value of a customer's session at which its orders fail"
    )
    fraud_session_gap_s: float = Field(
        default=3600.0, gt=0, description="Seconds without an order that end a customer's session"
    )

    unknown_products: UnknownProducts = Field(
        default=UnknownProducts.FAIL,
        description="`fail` or `pass`: orders for products that the product service has not published",
    )

    fulfilment_needs: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("VALIDATED", "PAID", "CHECKED_IN"),
        description="Prerequisites of shipping an order, comma separated",
    )
    checkin_patience_s: float = Field(default=60.0, gt=0, description="Seconds that a check-in waits for its order")

    database_pool: int = Field(default=5, ge=1, description="Database connections per service and worker")
    database_timeout_s: float = Field(
        default=5.0, gt=0, description="Seconds after which a request that waits for the database is answered 503"
    )
    checkin_database_url: SecretStr | None = Field(
        default=None, description="`postgresql://user:password@host:port/database` of the check-in service"
    )
    checkin_port: int = Field(
        default=3000,
        ge=0,
        le=65535,
        description="Second port of the check-in service, if it is free and HTTP_PORT is not 0; 0 for none",
    )
    checkin_time_zone: str = Field(
        default="Asia/Bangkok", description="IANA name of the time zone of times in check-ins"
    )

    products_database_url: SecretStr | None = Field(default=None, description="Database of the product service")
    product_log_database_url: SecretStr | None = Field(default=None, description="Database of the log of products")
    product_price_drop_limit: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="Share of its price above which a product's loss in one change is suspicious",
    )
    product_changes_limit: int = Field(
        default=10, ge=1, description="Changes of a product within the window above which they are suspicious"
    )
    product_changes_window_s: float = Field(
        default=60.0, gt=0, description="Seconds, the window in which changes of a product are counted"
    )
    product_notifications_to: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Recipients of an e-mail for each change of a product and each alert, comma separated",
    )

    side_effect_timeout_s: float = Field(
        default=3 * 24 * 3600.0,
        gt=0,
        description="Seconds after which an e-mail or database row that keeps failing is dead-lettered",
    )
    side_effect_longest_pause_s: float = Field(
        default=900.0, ge=1, description="Seconds, the longest pause between two attempts at an e-mail or database row"
    )

    email_window_s: float = Field(
        default=60.0,
        gt=0,
        le=7 * 24 * 3600,
        description="Seconds that e-mails wait for an unknown customer",
    )
    email_unpaid_days: float = Field(
        default=90.0,
        ge=7,
        le=3650,
        description="Days for which an order that is not paid in full can still be confirmed by e-mail",
    )
    mail_from: str = Field(default="Orders <orders@example.com>", description="Sender of e-mails")
    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(
        default=1025, ge=1, le=65535, description="Port of the mail server: usually 587 with STARTTLS, 465 with TLS"
    )
    smtp_security: SmtpSecurity = SmtpSecurity.NONE
    smtp_ca_file: Path | None = Field(default=None, description="Certificates to trust instead of the system's, PEM")
    smtp_user: str | None = Field(default=None, description="Login name, with SMTP_PASSWORD")
    smtp_password: SecretStr | None = None
    smtp_timeout_s: float = Field(default=20.0, gt=0)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    fail_points: Annotated[tuple[failpoints.Trigger, ...], NoDecode] = Field(
        default=(), description="For tests: steps at which to crash or pause, see `runtime/common/failpoints.py`"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str) or info.field_name is None:
            return value
        kind = cls.model_fields[info.field_name].annotation
        if kind is int:
            return numbers.whole(value)
        return numbers.decimal(value) if kind is float else value

    @field_validator("required_checks", "fulfilment_needs", "worker_keys", "product_notifications_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("product_notifications_to")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                address(one)
            except ValueError:
                raise ValueError(f"{one!r} is no address such as shop@example.org") from None
        return value

    @field_validator("mail_from")
    @classmethod
    def _sender(cls, value: str) -> str:
        try:
            mailbox(value)
        except ValueError:
            raise ValueError(f"{value!r} is no address such as Orders <orders@example.com>") from None
        return value

    @field_validator("currency")
    @classmethod
    def _currency(cls, value: str) -> str:
        return currency(value)

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

    @field_validator("checkin_time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # of nothing, of what is no name, of a folder of zones
            raise ValueError(f"{value!r} is no time zone such as Asia/Bangkok or UTC") from None
        return value

    @field_validator("fail_points", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return failpoints.parse(value) if isinstance(value, str) else value

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

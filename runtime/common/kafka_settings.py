"""Settings of the connection to Kafka: brokers, TLS, SASL, and Azure Event Hubs by its connection string."""

import os
import ssl
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from yarl import URL

from runtime.common.base_settings import ServiceSettings, empty_as_none, given

EVENT_HUBS = ".servicebus.windows.net"
"""Suffix of the host names of Azure Event Hubs."""

EVENT_HUBS_PORT = 9093
"""Where Event Hubs speaks Kafka's protocol."""

EVENT_HUBS_USER = "$ConnectionString"
"""User name with which a connection string is the password."""

_LOCAL = "127.0.0.1:9092"


VARIABLES = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "BOOTSTRAP_SERVERS",
    "EVENTHUB_CONNECTIONSTRING",
    "EVENTHUB_CONNECTIONSTRING_FILE",
)
"""Environment variables of which each names brokers."""


def brokers_named() -> bool:
    """Whether the environment names brokers, as opposed to the default."""
    return any(os.environ.get(name) for name in VARIABLES)


class SecurityProtocol(StrEnum):
    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def tls(self) -> bool:
        return self.value.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.value.startswith("SASL_")


class SaslMechanism(StrEnum):
    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


class KafkaSettings(ServiceSettings):
    """Brokers, and how to prove who we are. Names as in librdkafka and aiokafka."""

    eventhub_connectionstring: SecretStr | None = Field(
        default=None, description="Connection string of an Azure Event Hubs namespace; nothing else is needed"
    )
    kafka_bootstrap_servers: str = Field(
        default=_LOCAL,
        validation_alias=AliasChoices("kafka_bootstrap_servers", "bootstrap_servers"),
        validate_default=True,
        description="Brokers, host:port, comma separated; also `BOOTSTRAP_SERVERS`",
    )
    kafka_security_protocol: SecurityProtocol = Field(
        default=SecurityProtocol.PLAINTEXT,
        validate_default=True,
        description="`PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`",
    )
    kafka_ssl_cafile: Path | None = Field(
        default=None, description="CA certificates that sign the brokers', PEM; default: those of the system"
    )
    kafka_ssl_certfile: Path | None = Field(default=None, description="Our certificate, PEM, if brokers demand one")
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="Password of KAFKA_SSL_KEYFILE")
    kafka_ssl_keyfile: Path | None = Field(
        default=None,
        validate_default=True,
        description="Private key of KAFKA_SSL_CERTFILE, PEM; default: in the same file",
    )
    kafka_sasl_mechanism: SaslMechanism | None = Field(
        default=None,
        validate_default=True,
        description="`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`",
    )
    kafka_sasl_username: str | None = Field(default=None, validate_default=True, description="User of PLAIN and SCRAM")
    kafka_sasl_password: SecretStr | None = Field(
        default=None, validate_default=True, description="Password of KAFKA_SASL_USERNAME"
    )
    kafka_sasl_oauthbearer_token_command: str | None = Field(
        default=None, description="OAUTHBEARER: shell command that prints a token, or OAuth's JSON answer with one"
    )
    kafka_sasl_oauthbearer_token_endpoint_url: str | None = Field(
        default=None,
        validate_default=True,
        description="OAUTHBEARER: where tokens are got by client credentials, instead of a command",
    )
    kafka_sasl_oauthbearer_client_id: str | None = Field(
        default=None, validate_default=True, description="OAUTHBEARER: client id at the token endpoint"
    )
    kafka_sasl_oauthbearer_client_secret: SecretStr | None = Field(
        default=None, validate_default=True, description="OAUTHBEARER: secret of the client id"
    )
    kafka_sasl_oauthbearer_scope: str | None = Field(default=None, description="OAUTHBEARER: scope to ask for")
    kafka_sasl_oauthbearer_extensions: str | None = Field(
        default=None, description="OAUTHBEARER: SASL extensions, `name=value`, comma separated"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _unset_kafka(cls, value: object, info: ValidationInfo) -> object:
        return empty_as_none(value) if (info.field_name or "").startswith(("kafka_s", "eventhub_")) else value

    @field_validator("eventhub_connectionstring")
    @classmethod
    def _connection_string(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = _parts(value)
            if missing := [
                name for name in ("Endpoint", "SharedAccessKeyName", "SharedAccessKey") if not parts.get(name)
            ]:
                raise ValueError(
                    f"has no {', '.join(missing)}: copy it from the portal, "
                    "Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=…;SharedAccessKey=…"
                )
            if not URL(parts["Endpoint"]).host:
                raise ValueError("has no host in Endpoint=sb://NAMESPACE.servicebus.windows.net/")
        return value

    @field_validator("kafka_bootstrap_servers", mode="before")
    @classmethod
    def _servers(cls, value: object, info: ValidationInfo) -> object:
        string: SecretStr | None = given(info, "eventhub_connectionstring")
        if string is not None and value in {"", _LOCAL}:
            return f"{URL(_parts(string)['Endpoint']).host}:{EVENT_HUBS_PORT}"
        return value

    @field_validator("kafka_security_protocol", mode="before")
    @classmethod
    def _protocol(cls, value: object, info: ValidationInfo) -> object:
        protocol = value.upper() if isinstance(value, str) and value else SecurityProtocol.PLAINTEXT
        if given(info, "eventhub_connectionstring") is None:
            if not protocol.startswith("SASL_SSL") and _on_event_hubs(given(info, "kafka_bootstrap_servers") or ""):
                raise ValueError(f"is {protocol}, but Event Hubs needs SASL_SSL: set EVENTHUB_CONNECTIONSTRING")
            return protocol
        # The variable, not the value: the default is not a contradiction.
        if protocol != SecurityProtocol.SASL_SSL and os.environ.get("KAFKA_SECURITY_PROTOCOL"):
            raise ValueError(f"is {protocol}, but EVENTHUB_CONNECTIONSTRING needs SASL_SSL: unset it")
        return SecurityProtocol.SASL_SSL

    @field_validator("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile", "kafka_ssl_key_password")
    @classmethod
    def _only_with_tls(cls, value: Any, info: ValidationInfo) -> Any:
        protocol = given(info, "kafka_security_protocol")
        if value is None or protocol is None:
            return value
        if not protocol.tls:
            raise ValueError(f"is set, but KAFKA_SECURITY_PROTOCOL={protocol} has no TLS: set SSL or SASL_SSL")
        if isinstance(value, Path) and not value.is_file():
            raise ValueError(f"names no file: {value}")
        return value

    @field_validator("kafka_ssl_cafile")
    @classmethod
    def _certificates(cls, value: Path | None) -> Path | None:
        if value is None:  # those of the system are loaded when a connection needs them: it takes 15 to 80 ms
            return None
        try:
            ssl.create_default_context(cafile=value)
        except (OSError, ValueError) as error:
            raise ValueError(f"is no file of certificates in PEM format ({error}): {value}") from None
        return value

    @field_validator("kafka_ssl_keyfile")
    @classmethod
    def _key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate, password = given(info, "kafka_ssl_certfile"), given(info, "kafka_ssl_key_password")
        if value is not None and certificate is None:
            raise ValueError("is set without KAFKA_SSL_CERTFILE: set it to the certificate of this key")
        if certificate is not None:
            try:
                load_certificate(ssl.create_default_context(), certificate, value, password)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"does not open KAFKA_SSL_CERTFILE ({error}): check that both are PEM and belong together, "
                    "and KAFKA_SSL_KEY_PASSWORD"
                ) from None
        return value

    @field_validator("kafka_sasl_mechanism", mode="before")
    @classmethod
    def _mechanism(cls, value: object, info: ValidationInfo) -> object:
        protocol = given(info, "kafka_security_protocol")
        mechanism = (value.upper() or None) if isinstance(value, str) else value
        if given(info, "eventhub_connectionstring") is not None:
            if mechanism not in {None, SaslMechanism.PLAIN}:
                raise ValueError("contradicts EVENTHUB_CONNECTIONSTRING, which is sent by PLAIN: unset one of them")
            return SaslMechanism.PLAIN
        if protocol is None:
            return mechanism
        if protocol.sasl and mechanism is None:
            raise ValueError(f"is missing: KAFKA_SECURITY_PROTOCOL={protocol} needs one of {', '.join(SaslMechanism)}")
        if not protocol.sasl and mechanism is not None:
            raise ValueError(f"is set, but KAFKA_SECURITY_PROTOCOL={protocol} has no SASL: set SASL_SSL")
        return mechanism

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _credentials(cls, value: Any, info: ValidationInfo) -> Any:
        mechanism = given(info, "kafka_sasl_mechanism")
        if given(info, "eventhub_connectionstring") is not None:
            if value is not None:
                raise ValueError("contradicts EVENTHUB_CONNECTIONSTRING: unset one of them")
        elif value is None and mechanism in set(SaslMechanism) - {SaslMechanism.OAUTHBEARER}:
            raise ValueError(f"is missing: KAFKA_SASL_MECHANISM={mechanism} needs user and password")
        elif value is not None and mechanism in {None, SaslMechanism.OAUTHBEARER}:
            raise ValueError(
                f"is not used by KAFKA_SASL_MECHANISM={mechanism or ''}: set PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
            )
        return value

    @field_validator(
        "kafka_sasl_oauthbearer_token_command",
        "kafka_sasl_oauthbearer_token_endpoint_url",
        "kafka_sasl_oauthbearer_client_id",
        "kafka_sasl_oauthbearer_client_secret",
        "kafka_sasl_oauthbearer_scope",
        "kafka_sasl_oauthbearer_extensions",
    )
    @classmethod
    def _only_for_tokens(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and given(info, "kafka_sasl_mechanism") is not SaslMechanism.OAUTHBEARER:
            raise ValueError("is set, but KAFKA_SASL_MECHANISM is not OAUTHBEARER: set it, or unset this one")
        return value

    @field_validator("kafka_sasl_oauthbearer_token_endpoint_url")
    @classmethod
    def _token_source(cls, value: str | None, info: ValidationInfo) -> str | None:
        if given(info, "kafka_sasl_mechanism") is not SaslMechanism.OAUTHBEARER:
            return value
        command = given(info, "kafka_sasl_oauthbearer_token_command")
        if (command is None) == (value is None):
            both = "are both set" if value else "are both unset"
            raise ValueError(f"and KAFKA_SASL_OAUTHBEARER_TOKEN_COMMAND {both}: set one of them")
        if value is not None:
            url = URL(value)
            if url.scheme not in {"http", "https"} or not url.host:
                raise ValueError(f"is no URL such as https://login.example.com/oauth2/token: {value}")
        return value

    @field_validator("kafka_sasl_oauthbearer_client_id", "kafka_sasl_oauthbearer_client_secret")
    @classmethod
    def _client(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and given(info, "kafka_sasl_oauthbearer_token_endpoint_url") is not None:
            raise ValueError("is missing: KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL needs client id and secret")
        return value

    @field_validator("kafka_sasl_oauthbearer_extensions")
    @classmethod
    def _extensions(cls, value: str | None) -> str | None:
        if value is not None and not all(name and mark for name, mark, _ in _pairs(value)):
            raise ValueError("is no list such as logicalCluster=lkc-1,identityPoolId=pool-1")
        return value

    @property
    def event_hubs(self) -> bool:
        """Whether the brokers are, or stand for, Azure Event Hubs."""
        return self.eventhub_connectionstring is not None or _on_event_hubs(self.kafka_bootstrap_servers)

    @property
    def event_hub_entity(self) -> str | None:
        """`EntityPath` of the connection string: the only topic that its key is good for."""
        string = self.eventhub_connectionstring
        return None if string is None else _parts(string).get("EntityPath")

    @property
    def oauthbearer_extensions(self) -> dict[str, str]:
        return {name: value for name, _, value in _pairs(self.kafka_sasl_oauthbearer_extensions or "")}

    def sasl_login(self) -> tuple[str, str] | None:
        """User and password of PLAIN and SCRAM; `None` without."""
        if self.eventhub_connectionstring is not None:
            return EVENT_HUBS_USER, self.eventhub_connectionstring.get_secret_value()
        if self.kafka_sasl_username is None or self.kafka_sasl_password is None:
            return None
        return self.kafka_sasl_username, self.kafka_sasl_password.get_secret_value()


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None, password: SecretStr | None) -> None:
    """Loads our certificate and key. Without a password OpenSSL would ask the terminal for one."""
    context.load_cert_chain(certificate, key, "" if password is None else password.get_secret_value())


def _parts(connection_string: SecretStr) -> dict[str, str]:
    pairs = (part.partition("=") for part in connection_string.get_secret_value().strip().split(";"))
    return {name.strip(): value.strip() for name, mark, value in pairs if mark}


def _on_event_hubs(servers: str) -> bool:
    return any(server.strip().rpartition(":")[0].lower().endswith(EVENT_HUBS) for server in servers.split(","))


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [part.strip().partition("=") for part in text.split(",") if part.strip()]

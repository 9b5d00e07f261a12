"""Settings of the connection to Kafka: what belongs together, what contradicts, and where secrets come from."""

import logging

import pytest
import trustme
from pydantic import ValidationError

from runtime.common.settings import Settings
from runtime.kafka import security  # noqa: F401  installs the filter of aiokafka's log
from schemas.validation import field_errors
from tests.secured import CONNECTION_STRING, write_certificate

LOGIN = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN"}
TOKENS = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}
USER = {"kafka_sasl_username": "u", "kafka_sasl_password": "hunter2"}


@pytest.fixture
def certificates(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name in ("a", "b"):
        write_certificate(ca, name, tmp_path)
    return tmp_path


REFUSED = {
    "protocol": ({"kafka_security_protocol": "TLS"}, "kafka_security_protocol", "'SASL_SSL'"),
    "no mechanism": ({"kafka_security_protocol": "SASL_SSL"}, "kafka_sasl_mechanism", "is missing: KAFKA_SECURITY"),
    "unused mechanism": ({"kafka_sasl_mechanism": "PLAIN"}, "kafka_sasl_mechanism", "has no SASL: set SASL_SSL"),
    "no user": (LOGIN, "kafka_sasl_username", "is missing: KAFKA_SASL_MECHANISM=PLAIN needs user and password"),
    "no password": (LOGIN | {"kafka_sasl_username": "u"}, "kafka_sasl_password", "is missing"),
    "unused user": ({"kafka_sasl_username": "u"}, "kafka_sasl_username", "set PLAIN, SCRAM-SHA-256"),
    "user and tokens": (
        TOKENS | USER | {"kafka_sasl_oauthbearer_token_command": "echo t"},
        "kafka_sasl_password",
        "is not used by KAFKA_SASL_MECHANISM=OAUTHBEARER",
    ),
    "no source of tokens": (TOKENS, "kafka_sasl_oauthbearer_token_endpoint_url", "are both unset: set one"),
    "two sources of tokens": (
        TOKENS
        | {
            "kafka_sasl_oauthbearer_token_command": "echo t",
            "kafka_sasl_oauthbearer_token_endpoint_url": "https://login.example.com/token",
        },
        "kafka_sasl_oauthbearer_token_endpoint_url",
        "are both set",
    ),
    "endpoint": (
        TOKENS | {"kafka_sasl_oauthbearer_token_endpoint_url": "login"},
        "kafka_sasl_oauthbearer_token_endpoint_url",
        "is no URL such as https://",
    ),
    "no client": (
        TOKENS | {"kafka_sasl_oauthbearer_token_endpoint_url": "https://login.example.com/token"},
        "kafka_sasl_oauthbearer_client_secret",
        "is missing",
    ),
    "unused command": (
        LOGIN | USER | {"kafka_sasl_oauthbearer_token_command": "echo t"},
        "kafka_sasl_oauthbearer_token_command",
        "KAFKA_SASL_MECHANISM is not OAUTHBEARER",
    ),
    "extensions": (
        TOKENS | {"kafka_sasl_oauthbearer_token_command": "echo t", "kafka_sasl_oauthbearer_extensions": "x"},
        "kafka_sasl_oauthbearer_extensions",
        "is no list such as",
    ),
    "certificates without TLS": ({"kafka_ssl_cafile": "ca.pem"}, "kafka_ssl_cafile", "has no TLS: set SSL or SASL_SSL"),
    "no such file": (
        {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": "/nowhere.pem"},
        "kafka_ssl_cafile",
        "names no file: /nowhere.pem",
    ),
    "key without certificate": (
        {"kafka_security_protocol": "SSL", "kafka_ssl_keyfile": __file__},
        "kafka_ssl_keyfile",
        "is set without KAFKA_SSL_CERTFILE",
    ),
    "no certificates in the file": (
        {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": __file__},
        "kafka_ssl_cafile",
        "is no file of certificates in PEM format",
    ),
    "connection string": (
        {"eventhub_connectionstring": "Endpoint=sb://x/;SharedAccessKeyName=hunter2"},
        "eventhub_connectionstring",
        "has no SharedAccessKey: copy it from the portal",
    ),
    "connection string and user": (
        {"eventhub_connectionstring": CONNECTION_STRING} | USER,
        "kafka_sasl_password",
        "contradicts EVENTHUB_CONNECTIONSTRING",
    ),
    "Event Hubs without its string": (
        {"kafka_bootstrap_servers": "x.servicebus.windows.net:9093"},
        "kafka_security_protocol",
        "Event Hubs needs SASL_SSL: set EVENTHUB_CONNECTIONSTRING",
    ),
    "host without a password": ({"db_host": "pg", "db_user": "u"}, "db_password", "DB_HOST needs DB_USER and DB_PASS"),
    "no issuers": (
        {"db_host": "pg", "db_user": "u", "db_password": "hunter2", "db_sslmode": "verify-full"},
        "db_sslrootcert",
        "is missing: DB_SSLMODE=verify-full needs",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_together_is_refused_with_field_and_remedy(case):
    given, field, reason = REFUSED[case]
    with pytest.raises(ValidationError) as refused:
        Settings(**given)
    found = {invalid.field: invalid.reason for invalid in field_errors(refused.value)}
    assert reason in found[field]
    assert "hunter2" not in str(refused.value)


def test_a_key_that_belongs_to_another_certificate_is_refused(certificates):
    files = {"kafka_ssl_certfile": certificates / "a.crt", "kafka_ssl_keyfile": certificates / "b.key"}
    with pytest.raises(ValidationError, match="does not open KAFKA_SSL_CERTFILE"):
        Settings(kafka_security_protocol="SSL", **files)
    files["kafka_ssl_keyfile"] = certificates / "a.key"
    assert Settings(kafka_security_protocol="ssl", **files).kafka_security_protocol.tls


def test_secrets_are_not_shown():
    settings = Settings(**LOGIN, **USER)
    assert "hunter2" not in f"{settings!r} {settings}"
    assert settings.sasl_login() == ("u", "hunter2")


def test_a_connection_string_alone_is_enough(monkeypatch):
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    string = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=a2V5=;EntityPath=orders"
    monkeypatch.setenv("EVENTHUB_CONNECTIONSTRING", string)
    settings = Settings()
    assert settings.kafka_bootstrap_servers == "shop.servicebus.windows.net:9093"
    assert (settings.kafka_security_protocol, settings.kafka_sasl_mechanism) == ("SASL_SSL", "PLAIN")
    assert settings.sasl_login() == ("$ConnectionString", string)
    assert (settings.event_hubs, settings.event_hub_entity) == (True, "orders")
    monkeypatch.setenv("BOOTSTRAP_SERVERS", "other.servicebus.windows.net:9093")
    assert Settings().kafka_bootstrap_servers == "other.servicebus.windows.net:9093"
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    with pytest.raises(ValidationError, match="EVENTHUB_CONNECTIONSTRING needs SASL_SSL"):
        Settings()


def test_a_secret_comes_from_a_file_but_not_from_two_places(monkeypatch, tmp_path):
    file = tmp_path / "password"
    file.write_text("from a file\n")
    monkeypatch.setenv("SMTP_PASSWORD_FILE", str(file))
    assert Settings().smtp_password.get_secret_value() == "from a file"
    assert Settings(smtp_password="given").smtp_password.get_secret_value() == "given"
    monkeypatch.setenv("SMTP_PASSWORD", "from the environment")
    with pytest.raises(ValidationError, match="is set, and so is SMTP_PASSWORD_FILE: unset one of them"):
        Settings()
    monkeypatch.delenv("SMTP_PASSWORD")
    file.unlink()
    with pytest.raises(ValidationError, match=r"cannot be read from .*: No such file"):
        Settings()


def test_empty_variables_are_unset(monkeypatch):
    for name in ("EVENTHUB_CONNECTIONSTRING", "KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_SSL_CAFILE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DB_HOST", "")
    assert Settings().kafka_security_protocol == "PLAINTEXT"


def test_login_requests_are_not_logged(caplog):
    from aiokafka.protocol.admin import SaslAuthenticateRequest

    request = SaslAuthenticateRequest(b"\0u\0secret").prepare({36: (0, 1)})
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"):
        logging.getLogger("aiokafka.conn").debug("Request to %s:%d %d: %s", "h", 1, 2, request)
        logging.getLogger("aiokafka.conn").debug("Request to %s", "another")
    assert [record.getMessage() for record in caplog.records] == ["Request to another"]

"""Finds out why no client gets through to brokers that answer: certificate, protocol or login.

aiokafka retries all of these, and says only that it cannot bootstrap. After such an error one connection is tried here,
and its cause named with a remedy.
"""

import ssl
from dataclasses import dataclass

from aiokafka.conn import collect_hosts
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from runtime.common.kafka_settings import SaslMechanism
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.oauth import TokenUnavailable

_TIMEOUT_S = 5.0
"""Seconds to connect to a broker and log in."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a connection fails.

    Arguments:
        reason: cause and remedy, without secrets.
        final: whether a retry cannot help before settings or brokers change.
    """

    reason: str
    final: bool


async def find_rejection(settings: Settings) -> Rejection | None:
    """Tries one connection to each broker, also at the addresses that they advertise.

    Returns why the first broker that answers is of no use; `None` if none answers, or if all is well. Takes up to five
    seconds for each broker.
    """
    for host, port, _ in collect_hosts(settings.kafka_bootstrap_servers, randomize=False):
        found, advertised, answers = await _try(settings, host, port)
        if found is not None:
            return found
        if answers:
            return await _find_advertised(settings, f"{host}:{port}", advertised)
    return None


async def _find_advertised(settings: Settings, broker: str, advertised: list[tuple[str, int]]) -> Rejection | None:
    for host, port in advertised:
        found, _, answers = await _try(settings, host, port)
        if found is not None:
            return Rejection(f"{broker} advertises {host}:{port}, and {found.reason}", found.final)
        if not answers:
            return Rejection(
                f"{broker} advertises {host}:{port}, where nobody answers: set advertised.listeners of the broker to "
                "an address that this host reaches, or wait until that broker is up",
                final=False,
            )
    return None


async def _try(settings: Settings, host: str, port: int) -> tuple[Rejection | None, list[tuple[str, int]], bool]:
    """Returns what is wrong with a broker, the addresses that it advertises, and whether it answers."""
    broker = f"{host}:{port}"
    try:
        conn = await clients.connection(settings, host, port, _TIMEOUT_S)
    except (KafkaError, OSError, TimeoutError) as error:
        return _explain(settings, broker, error), [], False
    try:
        metadata = await conn.send(MetadataRequest([]))
    except (KafkaError, TimeoutError):
        return Rejection(_closed(settings, broker), final=False), [], True
    finally:
        conn.close()
    return None, [(host, port) for _, host, port, *_ in metadata.brokers], True


def _explain(settings: Settings, broker: str, error: BaseException) -> Rejection | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if "ostname" in error.verify_message or "IP address" in error.verify_message:
            return Rejection(
                f"the certificate of {broker} is for another host ({error.verify_message}): the broker must be named, "
                "in KAFKA_BOOTSTRAP_SERVERS and in its advertised.listeners, as its certificate names it",
                final=True,
            )
        return Rejection(
            f"the certificate of {broker} is not trusted ({error.verify_message}): set KAFKA_SSL_CAFILE to the "
            "certificates of its issuer",
            final=True,
        )
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return Rejection(
                f"{broker} does not speak TLS: check the port, or set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or "
                "SASL_PLAINTEXT",
                final=True,
            )
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Rejection(_closed(settings, broker), final=False)
        return Rejection(
            f"TLS to {broker} failed ({error.reason}): if it demands a certificate of ours, set KAFKA_SSL_CERTFILE",
            final=True,
        )
    if isinstance(error, UnsupportedSaslMechanismError):
        return Rejection(
            f"{broker} does not offer SASL {settings.kafka_sasl_mechanism}: set KAFKA_SASL_MECHANISM to what its "
            "listener enables",
            final=True,
        )
    if isinstance(error, SaslAuthenticationFailed):
        return Rejection(f"{broker} rejects the login ({_text(error)}): {_login_remedy(settings)}", final=True)
    if isinstance(error, IllegalSaslStateError):
        return Rejection(
            f"{broker} expects no SASL: set KAFKA_SECURITY_PROTOCOL to PLAINTEXT or SSL, or check the port", final=True
        )
    if isinstance(error, TokenUnavailable):
        return Rejection(_text(error), final=False)
    # Connected, then closed by the broker.
    if isinstance(error, KafkaConnectionError | ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return Rejection(_closed(settings, broker), final=False)
    return None


def _closed(settings: Settings, broker: str) -> str:
    protocol = settings.kafka_security_protocol
    ours = (
        ", that it demands no certificate (KAFKA_SSL_CERTFILE)"
        if protocol.tls and not settings.kafka_ssl_certfile
        else ""
    )
    return (
        f"{broker} closes connections that speak {protocol}: check that its listener expects this "
        f"KAFKA_SECURITY_PROTOCOL{ours}, and that the broker is not just starting or stopping"
    )


def _login_remedy(settings: Settings) -> str:
    if settings.eventhub_connectionstring is not None:
        return "check that EVENTHUB_CONNECTIONSTRING is of this namespace, and its key not regenerated"
    if settings.kafka_sasl_mechanism is SaslMechanism.OAUTHBEARER:
        return "check issuer, audience and scope of the token, and the clocks"
    return "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"


def _text(error: BaseException) -> str:
    return str(error.args[0]) if error.args else type(error).__name__

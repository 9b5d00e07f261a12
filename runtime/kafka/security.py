"""How each client reaches the brokers and proves who it is: options of aiokafka's clients."""

import asyncio
import logging
import ssl
from typing import Any
from weakref import WeakKeyDictionary

from runtime.common.kafka_settings import SaslMechanism, load_certificate
from runtime.common.settings import Settings
from runtime.kafka.oauth import TokenProvider, token_provider

_PROVIDERS: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Any, ...], TokenProvider]]" = WeakKeyDictionary()
"""One provider of tokens for all clients of a process, so that they share tokens."""


class _Redacted(logging.Filter):
    """Drops aiokafka's debug lines that print login requests with their credentials."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(type(argument).__name__.startswith("SaslAuthenticate") for argument in arguments)


logging.getLogger("aiokafka.conn").addFilter(_Redacted())


def connection_options(settings: Settings) -> dict[str, Any]:
    """Brokers, protocol, TLS and login, as all clients of aiokafka take them. Needs a running event loop."""
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": protocol.value,
    }
    if protocol.tls:
        options["ssl_context"] = ssl_context(settings)
    if mechanism is not None:
        options["sasl_mechanism"] = mechanism.value
    if mechanism is SaslMechanism.OAUTHBEARER:
        options["sasl_oauth_token_provider"] = _shared_provider(settings)
    elif (login := settings.sasl_login()) is not None:
        options["sasl_plain_username"], options["sasl_plain_password"] = login
    return options


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """Verifies certificate and host name of the broker; shows our certificate if there is one."""
    context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    if settings.kafka_ssl_certfile is not None:
        load_certificate(
            context, settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile, settings.kafka_ssl_key_password
        )
    return context


def _shared_provider(settings: Settings) -> TokenProvider:
    key = (
        settings.kafka_sasl_oauthbearer_token_command,
        settings.kafka_sasl_oauthbearer_token_endpoint_url,
        settings.kafka_sasl_oauthbearer_client_id,
        settings.kafka_sasl_oauthbearer_client_secret,
        settings.kafka_sasl_oauthbearer_scope,
        settings.kafka_sasl_oauthbearer_extensions,
    )
    providers = _PROVIDERS.setdefault(asyncio.get_running_loop(), {})
    if key not in providers:
        providers[key] = token_provider(settings)
    return providers[key]

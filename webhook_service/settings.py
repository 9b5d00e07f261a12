"""Settings of the webhook service."""

from pydantic import Field, SecretStr, field_validator

from runtime.common.settings import CommaSeparated, ServiceSettings
from runtime.http.networks import Network

_SHORTEST_KEY = 32
"""Characters: 128 bits in hexadecimal digits."""


class WebhookSettings(ServiceSettings):
    """Keys, allowed addresses and limits of webhooks."""

    webhook_keys: CommaSeparated[SecretStr] = Field(
        default=(),
        description="Keys from which the secrets of subscriptions derive, comma separated, 32 characters or more each; "
        "the first one makes new secrets. Without a key nothing can be subscribed",
    )
    webhook_allowed_networks: CommaSeparated[Network] = Field(
        default=(),
        description="Networks besides public addresses to which events may be delivered, also by plain http, comma "
        "separated, such as 10.1.0.0/16",
    )
    webhook_plain_http: bool = Field(
        default=False,
        description="Whether plain http may be used to public addresses: `true` or `false`",
    )
    webhook_timeout_s: float = Field(
        default=10.0, ge=0.1, le=60, description="Seconds that a receiver may take to answer"
    )
    webhook_concurrency: int = Field(
        default=8, ge=1, le=100, description="Concurrent deliveries to one subscription, in each worker"
    )
    webhook_max_waiting: int = Field(
        default=10_000,
        ge=1,
        description="Deliveries of a subscription that may wait in a partition; further ones are dead-lettered",
    )
    webhook_secret_overlap_s: float = Field(
        default=24 * 3600.0, ge=0, description="Seconds for which a secret is valid after it was replaced by another"
    )

    @field_validator("webhook_keys")
    @classmethod
    def _long(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(keys, 1):
            if len(key.get_secret_value()) < _SHORTEST_KEY:
                raise ValueError(f"key {number} is shorter than {_SHORTEST_KEY} characters: `openssl rand -hex 32`")
        return keys

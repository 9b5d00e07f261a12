"""Checks of the settings of services: values that are refused, and keys that are missing where a service runs."""

from pydantic import ValidationError

from ecosystem import services
from ecosystem.clients.wording import counted
from ecosystem.doctor.finding import Finding, ok, problem
from runtime.common.settings import Settings
from runtime.observation.groups import GroupReader
from schemas.validation import field_errors
from webhook_service.settings import WebhookSettings

_WEBHOOKS = "webhooks"


async def check_settings(settings: Settings) -> list[Finding]:
    """Whether each service accepts its environment variables."""
    refused: dict[tuple[str, str], list[str]] = {}
    for service, kinds in services.SETTINGS.items():
        for kind in kinds:
            try:
                settings.of(kind)
            except ValidationError as error:
                for invalid in field_errors(error):
                    name = invalid.field.partition(".")[0].upper()
                    refused.setdefault((name, invalid.reason), []).append(service)
    return [
        problem(
            "settings",
            f"{name} {reason}",
            f"No worker with {', '.join(names)} starts, and the checks that need these services are left out.",
            f"set {name} as the reference of settings says: orders settings",
        )
        for (name, reason), names in refused.items()
    ] or [ok("settings", f"accepted by {len(services.SETTINGS)} services")]


async def check_webhooks(settings: Settings) -> list[Finding]:
    """Whether there is a key for the secrets of webhooks, where a worker runs them."""
    async with GroupReader(settings) as reader:
        groups = await reader.read()
    running = any(_WEBHOOKS in member.services for group in groups for member in group.members)
    return judge_webhooks(running, len(settings.of(WebhookSettings).webhook_keys))


def judge_webhooks(running: bool, keys: int) -> list[Finding]:
    """Judges the keys of webhooks. `running`: whether a worker runs the service; `keys`: how many there are."""
    if not running:
        return [ok(_WEBHOOKS, "no worker runs them")]
    if keys:
        return [ok(_WEBHOOKS, f"WEBHOOK_KEYS has {counted(keys, 'key')}")]
    return [
        problem(
            _WEBHOOKS,
            "WEBHOOK_KEYS is not set, and a worker runs webhooks",
            "Without a key nothing can be subscribed, and deliveries of earlier subscriptions wait.",
            'set WEBHOOK_KEYS="$(openssl rand -hex 32)", the same for all workers with webhooks, and keep it; if the '
            "workers have it, give it to this command as well",
        )
    ]

"""`orders webhooks`: subscribe URLs to events, and see what was delivered."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import click
from pydantic import ValidationError
from rich.console import Console

from ecosystem.cli.commands.shared import Whole, perform, service_url_option
from ecosystem.clients.webhooks import WebhooksApi
from schemas.validation import describe_invalid
from schemas.webhooks import DeliveryAttempt, EventType, NewWebhook, WebhookWithSecret

T = TypeVar("T")

_url_option = service_url_option("webhooks")
_id_argument = click.argument("webhook_id", metavar="ID")


@click.group()
def webhooks() -> None:
    """Deliver events to URLs: subscribe, test, see deliveries."""


@webhooks.command("list")
@_url_option
def list_(url: str) -> None:
    """List the webhooks: id, URL, kinds of events.

    \b
    orders webhooks list
    """
    console = Console(highlight=False)
    for webhook in _ask(url, lambda api: api.list()).webhooks:
        console.print(f"{webhook.id}  {webhook.url}  {', '.join(webhook.events)}", markup=False, soft_wrap=True)


@webhooks.command()
@click.argument("target", metavar="TARGET")
@click.argument("events", metavar="EVENT...", nargs=-1, required=True, type=click.Choice([str(e) for e in EventType]))
@click.option("--description", help="A note for people")
@_url_option
def add(target: str, events: tuple[str, ...], description: str | None, url: str) -> None:
    """Deliver each EVENT to the URL TARGET from now on.

    The secret of its signatures is shown this once. EVENT is one of order.validated, order.failed, order.shipped,
    order.cancelled, product.changed and dead_letter.written.

    \b
    orders webhooks add https://shop.example.com/hooks order.validated
    """
    try:
        new = NewWebhook(url=target, events=tuple(map(EventType, events)), description=description)
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error
    _show_secret(_ask(url, lambda api: api.add(new)))


@webhooks.command()
@_id_argument
@_url_option
def remove(webhook_id: str, url: str) -> None:
    """Remove the webhook ID. What waits for it is dropped.

    \b
    orders webhooks remove wh_0199…
    """
    _ask(url, lambda api: api.remove(webhook_id))
    click.echo(f"{webhook_id} is removed.")


@webhooks.command()
@_id_argument
@_url_option
def rotate(webhook_id: str, url: str) -> None:
    """Give the webhook ID a new secret, shown this once.

    For a while, deliveries are signed with both secrets: give the new one to the receiver meanwhile.

    \b
    orders webhooks rotate wh_0199…
    """
    _show_secret(_ask(url, lambda api: api.rotate(webhook_id)))


@webhooks.command()
@_id_argument
@_url_option
def test(webhook_id: str, url: str) -> None:
    """Send a test event to the webhook ID.

    \b
    orders webhooks test wh_0199…
    """
    sent = _ask(url, lambda api: api.test(webhook_id))
    click.echo(f"{sent.webhook_id} is on its way: `orders webhooks deliveries {webhook_id}` says what became of it.")


@webhooks.command()
@_id_argument
@click.option("--limit", type=Whole(1, 200), default=20, show_default=True, metavar="N", help="Attempts to show")
@_url_option
def deliveries(webhook_id: str, limit: int, url: str) -> None:
    """Show the latest deliveries to the webhook ID, newest first.

    Each attempt has a line: time, result, duration, event, id of the event.

    \b
    orders webhooks deliveries wh_0199…
    """
    attempts = _ask(url, lambda api: api.deliveries(webhook_id)).attempts[:limit]
    if not attempts:
        click.echo("nothing was delivered yet")
    for attempt in attempts:
        at = f"{attempt.at:%Y-%m-%d %H:%M:%S}Z"
        click.echo(
            f"{at}  {_result(attempt):<22}  {attempt.duration_ms:>5} ms  {attempt.type:<16}  {attempt.webhook_id}"
        )


def _result(attempt: DeliveryAttempt) -> str:
    if attempt.status is None:
        return attempt.error or "failed"
    return f"{attempt.status} {'delivered' if attempt.delivered else 'not accepted'}"


def _show_secret(webhook: WebhookWithSecret) -> None:
    console = Console(highlight=False)
    lines = [f"webhook  {webhook.id}", f"url      {webhook.url}", f"secret   {webhook.secret}"]
    if webhook.previous_secret_until is not None:
        lines.append(f"The earlier secret is valid until {webhook.previous_secret_until:%Y-%m-%d %H:%M:%S}Z.")
    lines.append("The secret is not shown again: give it to the receiver now.")
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _ask(url: str, request: Callable[[WebhooksApi], Awaitable[T]]) -> T:
    async def send() -> T:
        async with WebhooksApi(url) as api:
            return await request(api)

    return perform(send(), url)

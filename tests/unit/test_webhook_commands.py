"""What `orders webhooks` shows: a secret once, and one line for each webhook and delivery."""

from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from ecosystem.cli.commands import webhooks
from ecosystem.cli.main import main
from schemas.webhooks import Deliveries, DeliveryAttempt, TestDelivery, Webhook, Webhooks, WebhookWithSecret

AT = datetime(2026, 11, 29, 13, 0, 5, tzinfo=UTC)
HOOK = {"id": "wh_1", "url": "https://shop.example/[hooks]", "events": ("order.failed",), "created_at": AT}


class Api:
    """Answers as the service does."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, url):
        self.url = url

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def list(self):
        return Webhooks(webhooks=(Webhook(**HOOK, secret_version=1),))

    async def add(self, new):
        self.asked.append(new)
        return WebhookWithSecret(**HOOK, secret_version=1, secret="whsec_c2VjcmV0")

    async def rotate(self, id_):
        return WebhookWithSecret(**HOOK, secret_version=2, previous_secret_until=AT, secret="whsec_bmV3")

    async def test(self, id_):
        return TestDelivery(webhook_id=f"evt_of_{id_}")

    async def remove(self, id_):
        self.asked.append(id_)

    async def deliveries(self, id_):
        done = DeliveryAttempt(
            at=AT, webhook_id="evt_2", type="order.failed", delivered=True, status=204, duration_ms=12
        )
        refused = done.model_copy(update={"delivered": False, "status": 500, "webhook_id": "evt_1"})
        lost = done.model_copy(update={"delivered": False, "status": None, "error": "timeout", "duration_ms": 10000})
        return Deliveries(attempts=(done, refused, lost))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(webhooks, "WebhooksApi", Api)
    Api.asked = []

    def run(*arguments):
        result = CliRunner().invoke(main, ["webhooks", *arguments, "--url", "http://w"], env={"COLUMNS": "60"})
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    return run


def test_add_shows_the_secret(run):
    shown = run("add", "https://shop.example/[hooks]", "order.failed", "order.failed", "--description", "the shop")
    assert shown == [
        "webhook  wh_1",
        "url      https://shop.example/[hooks]",
        "secret   whsec_c2VjcmV0",
        "The secret is not shown again: give it to the receiver now.",
    ]
    (new,) = Api.asked
    assert (new.events, new.description) == (("order.failed",), "the shop")


def test_rotate_says_how_long_the_earlier_secret_is_valid(run):
    shown = run("rotate", "wh_1")
    assert "secret   whsec_bmV3" in shown
    assert "The earlier secret is valid until 2026-11-29 13:00:05Z." in shown


def test_list_has_a_line_for_each(run):
    assert run("list") == ["wh_1  https://shop.example/[hooks]  order.failed"]


def test_deliveries_have_a_line_for_each(run):
    assert [line.split() for line in run("deliveries", "wh_1")] == [
        ["2026-11-29", "13:00:05Z", "204", "delivered", "12", "ms", "order.failed", "evt_2"],
        ["2026-11-29", "13:00:05Z", "500", "not", "accepted", "12", "ms", "order.failed", "evt_1"],
        ["2026-11-29", "13:00:05Z", "timeout", "10000", "ms", "order.failed", "evt_2"],
    ]
    assert len(run("deliveries", "wh_1", "--limit", "1")) == 1


def test_test_and_remove_say_what_they_did(run):
    assert run("test", "wh_1")[0].startswith("evt_of_wh_1 is on its way")
    assert run("remove", "wh_1") == ["wh_1 is removed."]
    assert Api.asked == ["wh_1"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("add", "shop.example", "order.failed"), "must be an absolute http or https URL"),
        (("add", "https://shop.example"), "Missing argument 'EVENT...'"),
        (("add", "https://shop.example", "order.paid"), "'order.paid' is not one of"),
        (("deliveries", "wh_1", "--limit", "0"), "0 is not in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(arguments, why):
    result = CliRunner().invoke(main, ["webhooks", *arguments, "--url", "http://w"])
    assert result.exit_code == 2
    assert why in result.output

"""Which URLs can be subscribed: those to which something could be delivered."""

import pytest
from pydantic import ValidationError

from runtime.common.settings import Settings
from runtime.http.answers import HttpProblem
from schemas.validation import describe_invalid
from schemas.webhooks import NewWebhook
from webhook_service.http import _check_url
from webhook_service.settings import WebhookSettings

ABSOLUTE = "must be an absolute http or https URL"
PUBLIC = "must have a public address, or one in WEBHOOK_ALLOWED_NETWORKS"
NO_HTTP = "must be https: the operator allows no plain http"


@pytest.mark.parametrize(
    "url",
    [
        "", "shop", "ftp://shop.example/", "//shop.example/", "https://", "https:///hooks", "https://me@shop.example/",
        "https://me:pw@shop.example/", "https://shop.example/#there", "https://shop.example/a b", "https://shop.example\\x",
        "javascript:alert(1)", " https://shop.example/", "https://shop.example/\n", "file:///etc/passwd", "HTTPS://",
    ],
)  # fmt: skip
def test_what_is_no_such_url_is_refused(url):
    with pytest.raises(ValidationError) as refused:
        NewWebhook(url=url, events=["order.failed"])
    assert ABSOLUTE in describe_invalid(refused.value)


@pytest.mark.parametrize(
    ("url", "settings", "why"),
    [
        ("https://shop.example/hooks?a=b&c=@d", {}, None),
        ("https://shop.example:8443", {}, None),
        ("https://müller.example/", {}, None),
        ("https://1.1.1.1/", {}, None),
        ("https://localhost/", {}, None),  # names are looked up when something is delivered
        ("https://127.0.0.1/", {}, PUBLIC),
        ("https://[::1]/", {}, PUBLIC),
        ("https://[::ffff:169.254.169.254]/", {}, PUBLIC),
        ("https://10.1.2.3/", {"webhook_allowed_networks": "10.1.0.0/16"}, None),
        ("https://10.2.2.3/", {"webhook_allowed_networks": "10.1.0.0/16"}, PUBLIC),
        ("http://shop.example/", {}, NO_HTTP),
        ("http://shop.example/", {"webhook_plain_http": True}, None),
        ("http://shop.example/", {"webhook_allowed_networks": "10.1.0.0/16"}, None),
        ("http://10.1.2.3/", {"webhook_allowed_networks": "10.1.0.0/16"}, None),
        ("http://1.1.1.1/", {"webhook_allowed_networks": "10.1.0.0/16"}, PUBLIC),
        ("http://1.1.1.1/", {"webhook_plain_http": True}, None),
        ("https://shop.example:99999/", {}, "must be a URL"),
        ("https://[::1/", {}, "must be a URL"),
    ],
)
def test_a_url_is_refused_with_what_it_must_be(url, settings, why):
    own = Settings(**settings).of(WebhookSettings)
    content = NewWebhook(url=url, events=["order.failed"])
    if why is None:
        _check_url(content.url, own)
        return
    with pytest.raises(HttpProblem) as refused:
        _check_url(content.url, own)
    assert refused.value.status == 400
    assert [error.name for error in refused.value.errors] == ["url"]
    assert why in refused.value.errors[0].reason

"""An e-mail has exactly its recipient, whatever names contain, on every Python."""

from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, message_from_string, policy
from email.header import decode_header, make_header
from email.utils import getaddresses, parsedate_to_datetime

import pytest
from aiosmtplib.email import extract_recipients, extract_sender, flatten_message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runtime.mail.envelope import Envelope
from runtime.mail.message import compose_email, message_id_domain
from schemas.addresses import address

AT = datetime(2026, 11, 28, 10, 30, 25, 123456, timezone(timedelta(hours=7)))
ORDERS = "Orders <orders@example.com>"
NASTY = (
    "Novák, victim@example.org, " * 12,
    'a very long name, with a comma, "and quotes", (and a comment) <evil@example.org>; group: x@y.org;',
    "x" * 75 + ", evil@example.org",
    "victim@example.org",
    "<victim@example.org>",
    "=?utf-8?q?victim=40example=2Eorg=2C?=",
    "=?utf-8?b?dmljdGltQGV4YW1wbGUub3JnLA==?= =?utf-8?q?=0D=0ABcc:_x@y.org?=",
    "Franz\r\nBcc: evil@example.org",
    "Franz\nSubject: hello\n\nbody",
    "\0\x01\x7f\x85",
    "a\u2028b\u2029c",
    "\u202egro.elpmaxe@live",
    "half \ud800 of one",
    'back\\slash "quote" \\',
    ".. . ,,, ;;; :::",
    "",
    "   \t ",
    "žluťoučký kůň " * 40,
    "👩‍👩‍👧‍👦" * 60,
    "K" * 5000,
    "Kafka " * 1000,
)
NAMES = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=300),
    st.text(st.sampled_from('ab,@<>()[]:;."\\ =?\r\n\t\0ž\u2028\ud800'), max_size=200),
    st.lists(st.sampled_from(NASTY), max_size=4).map(" ".join),
)
ADDRESSES = st.sampled_from(
    (
        "franz@example.org",
        "f.k+orders@b.example",
        '"franz kafka"@example.org',
        '"a,b"@example.org',
        "o'brien@example.org",
        "f@[::1]",
        f"{'l' * 64}@{'d' * 60}.{'e' * 60}.example.org",
        "franz@bücher.example",
        "=?utf-8?q?x?=@example.org",
    )
)


def made(to="franz@example.org", name="Franz Kafka", sender=ORDERS, subject="Your order o1", **changes):
    """The message, and its bytes as aiosmtplib prints them."""
    given = {"at": AT, "message_id": "<1@example.com>", "headers": {"X-Order-Id": "o1"}, "text": "Hello", **changes}
    message = compose_email(to=address(to), name=name, sender=sender, subject=subject, **given)
    utf8 = not (to + extract_sender(message)).isascii()
    return message, flatten_message(message, utf8=utf8)


def old(raw: bytes, field: str) -> str:
    """A header as parsers without RFC 6532 see it, unfolded."""
    [value] = [v for n, v in message_from_bytes(raw, policy=policy.compat32).raw_items() if n == field]
    return str(value).encode(errors="surrogateescape").decode().replace("\r\n", "").replace("\n", "")


@settings(max_examples=400, deadline=None)
@given(NAMES, ADDRESSES)
@example(NASTY[0], "franz@example.org")
def test_an_e_mail_has_one_recipient_whatever_the_name(name, to):
    try:
        message, raw = made(to, name)
    except ValueError:
        assert "=?" in to  # a name with special characters is encoded
        return
    parsed = message_from_string(raw.decode(), policy=policy.default)

    assert extract_recipients(message) == [to]
    assert [found for _, found in getaddresses([old(raw, "To")])] == [to]
    assert [found.addr_spec for found in parsed["To"].addresses] == [to]
    assert [*parsed.keys()] == [*message.keys()]
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    shown = str(make_header(decode_header(getaddresses([old(raw, "To")])[0][0])))
    assert not any(c < " " or c in "\x7f\u2028\u2029\u202e" for c in shown)


@pytest.mark.parametrize("utf8", [False, True])
@pytest.mark.parametrize("name", NASTY)
def test_an_e_mail_to_a_domain_beyond_ascii_has_one_recipient(name, utf8):
    sender = '"' + "Knihy, evil@example.org, " * 8 + '" <o@bücher.example>'
    envelope = Envelope.of(made("franz@bücher.example", name, sender)[0])
    raw = envelope.content(utf8=utf8, eight_bit=False)
    parsed = message_from_bytes(raw, policy=policy.default)

    for field, wanted in (("To", "franz@xn--bcher-kva.example"), ("From", "o@xn--bcher-kva.example")):
        assert [found for _, found in getaddresses([old(raw, field)])] == [wanted]
        assert [found.addr_spec for found in parsed[field].addresses] == [wanted]
    assert (envelope.recipient, max(map(len, raw.split(b"\r\n"))) <= 998) == ("franz@xn--bcher-kva.example", True)


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_unchanged_except_for_characters_forbidden_in_headers(name):
    _, raw = made(name=name)
    shown = str(make_header(decode_header(getaddresses([old(raw, "To")])[0][0])))
    kept = "".join(" " if c < " " or c in "\x7f\x85\u2028\u2029\ud800" else c for c in name if c != "\u202e")
    assert shown == " ".join(kept.split())[:128].strip()


def test_an_ordinary_name_stays_readable():
    assert made()[0]["To"] == "Franz Kafka <franz@example.org>"
    assert b"\r\nTo: " not in made()[1][:4]
    assert made()[1].startswith(b"To: Franz Kafka <franz@example.org>\r\nFrom: Orders <orders@example.com>\r\n")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=200))
@example("=?utf-8?q?=41?=")
@example("x" * 128)
@example("o-" + "ž" * 120)
def test_a_subject_or_id_is_read_as_written(said):
    message, raw = made(subject=f"Your order {said} is confirmed", headers={"X-Order-Id": said})
    parsed = message_from_bytes(raw, policy=policy.default)

    assert str(make_header(decode_header(old(raw, "X-Order-Id").strip()))) == said.strip()
    assert [*parsed.keys()] == [*message.keys()]
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("said", ["one\ntwo", "a\r\nBcc: evil@example.org", "nul\0"])
def test_a_subject_on_two_lines_is_rejected(said):
    with pytest.raises(ValueError, match="subject"):
        made(subject=said)


@pytest.mark.parametrize("said", ["one\ntwo", "a\r\nBcc: evil@example.org", "nul\0", "half \ud800"])
def test_an_id_is_on_one_line(said):
    message, raw = made(headers={"X-Event-Id": said})
    assert [*message_from_bytes(raw, policy=policy.default).keys()] == [*message.keys()]


@pytest.mark.parametrize(
    ("sender", "domain"),
    [
        ("orders@example.com", "example.com"),
        ('"Orders, here; there: <everywhere>" <o@example.com>', "example.com"),
        ('"a@b"@example.com', "example.com"),
        ("Objednávky, " * 20 + "<o@example.com>", None),
        ("Knihy <o@bücher.example>", "xn--bcher-kva.example"),
        ('"' + "long, name, " * 20 + '" <o@example.com>', "example.com"),
    ],
)
def test_there_is_one_sender_whatever_the_name(sender, domain):
    if domain is None:
        with pytest.raises(ValueError, match=r"."):
            made(sender=sender)
        return
    message, raw = made(sender=sender)
    spec = extract_sender(message)
    assert [found for _, found in getaddresses([old(raw, "From")])] == [spec]
    assert message_id_domain(sender) == domain


def test_an_e_mail_has_a_date_and_auto_submitted():
    message, raw = made()
    parsed = message_from_bytes(raw, policy=policy.default)
    assert parsed["Date"].datetime == AT.replace(microsecond=0)
    assert parsedate_to_datetime(str(message["Date"])).tzinfo is UTC
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert [parsed["Message-ID"], parsed["X-Order-Id"]] == ["<1@example.com>", "o1"]


@pytest.mark.parametrize(
    "at", [datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), datetime.max.replace(tzinfo=UTC)]
)
def test_an_impossible_date_is_replaced(at):
    _, raw = made(at=at)
    assert message_from_bytes(raw, policy=policy.default)["Date"].datetime == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("body", ["Dear \0 you", "half \ud83d", "long " * 400, "ž" * 2000, ".\r\n.\r\n", "a\u2028b"])
def test_any_text_can_be_a_body(body):
    _, raw = made(text=body, html=f"<p>{body}</p>")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert b"\0" not in raw
    parsed = message_from_bytes(raw, policy=policy.default)
    assert body[:4] in parsed.get_body(("plain",)).get_content()


@pytest.mark.parametrize("to", ["a@b.example\0", f"{'x' * 300}@example.org"])
def test_an_address_that_smtp_cannot_transport_is_rejected(to):
    with pytest.raises(ValueError, match=r"no address|not an e-mail address"):
        made(to)

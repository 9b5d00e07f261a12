"""Messages as lines: each of the catalogue says what matters, and nothing breaks the line."""

import re
from pathlib import Path

import pytest

from ecosystem.clients.readable import content, line
from runtime.common.partitioning import partition_of
from runtime.model.records import Record
from schemas.topics import CATALOGUE, DEAD_LETTERS, ORDERS

GOLDEN = Path(__file__).parent / "golden"


def record(topic, value, key=b"k", headers=()):
    return Record(topic, 3, 14, 1_600_000_000_123, key, value, headers)


def golden(model):
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", model.__name__).lower()
    return (GOLDEN / f"{name}.json").read_bytes()


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_each_message_of_the_catalogue_has_a_line_of_its_own(topic):
    said = content(record(topic.name, golden(topic.model)))
    assert not said.startswith("{"), (
        f"{topic.model.__name__} is shown as JSON: give it a line in ecosystem/clients/readable.py"
    )
    assert said.isprintable()


@pytest.mark.parametrize(
    ("topic", "value", "said"),
    [
        (
            "orders",
            (
                b'{"id":"o1","customerId":7,"state":"FAILED","product":"mug","quantity":2,"price":12.5,'
                b'"createdAt":"2020-01-01T12:00:00Z","reasons":["no stock","no such customer"]}'
            ),
            "FAILED customer 7: 2 × mug at 12.50 EUR (no stock; no such customer)",
        ),
        (
            "order-validations",
            b'{"orderId":"o1","checkType":"FRAUD_CHECK","validationResult":"PASS"}',
            "FRAUD_CHECK PASS",
        ),
        ("payments", b'{"id":"p1","orderId":"o1","ccy":"EUR","amount":25}', "25.00 EUR for order o1"),
        (
            "customers",
            b'{"id":7,"firstName":"Franz","lastName":"Kafka","email":"f@example.org","address":"Praha","level":"gold"}',
            "Franz Kafka <f@example.org>, gold",
        ),
        ("fulfilments", b'{"orderId":"o1"}', "FULFILLED"),
        ("orders", None, "(deleted)"),
        ("orders", b'{"id": 1}', '{"id": 1}'),
        ("orders", b"no JSON\n\x1b[2J", r"no JSON\n\x1b[2J"),
        ("orders-view-changelog", b'{\n  "a": "\xc3\xa9"\n}\n', '{"a": "é"}'),
        ("elsewhere", b"\xff", "\ufffd"),
    ],
)
def test_what_messages_say(topic, value, said):
    assert content(record(topic, value)) == said


def test_a_dead_letter_says_who_failed_and_why():
    headers = (("service", b"fraud"), ("error", b"id: Field required\nprice: Field required"))
    said = content(record(ORDERS.name + DEAD_LETTERS, b'{"id": 1}', headers=headers))
    assert said == r'fraud: id: Field required\nprice: Field required | {"id": 1}'


def test_a_line_has_time_topic_key_content_and_place():
    written = line(record("fulfilments", b'{"orderId":"o1"}', key=b"o\n1")).plain
    assert written.split() == ["12:26:40.123", "fulfilments", r"o\n1", "FULFILLED", "3@14"]


@pytest.mark.parametrize("milliseconds", [-1, 0, 1_600_000_000, 2**62, -(2**62)])
def test_a_record_of_any_time_has_a_line(milliseconds):
    assert "3@14" in line(record("orders", b"?")._replace(timestamp_ms=milliseconds)).plain


def test_a_record_in_another_partition_than_its_keys_is_marked():
    belongs = partition_of(b"k", 8)
    there = record("orders", golden(ORDERS.model))
    assert f"misplaced: belongs in partition {belongs}" in line(there._replace(partition=(belongs + 1) % 8), 8).plain
    assert "misplaced" not in line(there._replace(partition=belongs), 8).plain
    assert "misplaced" not in line(there._replace(key=None), 8).plain
    assert "misplaced" not in line(record("orders" + DEAD_LETTERS, b"?", b"o"), 8).plain

"""Dead letters name what other producers did to keys and values, with the remedy."""

import gzip
import json

import pytest

from runtime.model.dead_letters import REASON_HEADERS
from runtime.model.remedies import with_remedy
from runtime.model.service import Input, Service
from runtime.testing import TopologyTestDriver
from schemas.messages import Customer, CustomerLevel
from schemas.topics import CUSTOMERS, ORDERS
from tests.samples import order

ORDER = order("o1").to_json()
CUSTOMER = Customer(
    id=7, first_name="A", last_name="B", email="a@example.org", address="here", level=CustomerLevel.GOLD
).to_json()

VALUES = {
    "empty": (b"", "the value is empty: a tombstone has no value at all (null)"),
    "schema registry": (b"\0\0\0\0\x2a" + ORDER, "schema registry's magic byte and schema id 42: write plain JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + ORDER, "byte order mark (BOM): write UTF-8 without it"),
    "UTF-16 with BOM": (ORDER.decode().encode("utf-16"), "the value is UTF-16: write UTF-8"),
    "UTF-16LE": (ORDER.decode().encode("utf-16-le"), "the value is UTF-16: write UTF-8"),
    "UTF-16BE": (ORDER.decode().encode("utf-16-be"), "the value is UTF-16: write UTF-8"),
    "gzip": (gzip.compress(ORDER), "compressed with gzip by the application"),
    "zstd": (b"\x28\xb5\x2f\xfd" + ORDER, "compressed with zstd by the application"),
    "Avro file": (b"Obj\x01" + ORDER, "an Avro file: write JSON"),
    "JSON in a string": (json.dumps(ORDER.decode()).encode(), "JSON within a JSON string: encode it once"),
    "Connect's envelope": (
        b'{"schema":{"type":"struct"},"payload":' + ORDER + b"}",
        "envelope of Kafka Connect: value.converter.schemas.enable=false",
    ),
    "a field missing": (b'{"id":"o1"}', "write the JSON that `orders asyncapi` shows for orders"),
    "nested deep": (b'{"a":' * 20_000, "write the JSON that `orders asyncapi` shows for orders"),
    "half a megabyte": (b'{"schema":1,"payload":"' + b"x" * 500_000 + b'"}', "write the JSON that `orders asyncapi`"),
    "a thousand faults": (
        ORDER[:-1] + b',"reasons":[' + b"1," * 1000 + b"1]}",
        "write the JSON that `orders asyncapi`",
    ),
}

KEYS = {
    "none": (None, "the key of customers is the value's id, as UTF-8 text"),
    "another": (b"8", "the key of customers is the value's id"),
    "empty": (b"", "the key is empty"),
    "binary integer": ((7).to_bytes(4, "big"), "a binary integer: write its digits as text (StringSerializer)"),
    "binary long": ((7).to_bytes(8, "big"), "a binary integer: write its digits as text (StringSerializer)"),
    "schema registry": (b"\0\0\0\0\x05\x02" + b"7", "magic byte and schema id 5: write plain text"),
    "JSON string": (b'"7"', "a JSON string: write it without quotes (Kafka Connect: key.converter="),
    "JSON object": (b'{"id":7}', "the key is a JSON object: the key of customers is the value's id"),
    "Connect's envelope": (b'{"schema":{"type":"string"},"payload":"7"}', "Kafka Connect: key.converter="),
    "byte order mark": (b"\xef\xbb\xbf7", "byte order mark (BOM): write UTF-8 without it"),
    "UTF-16": (b"7\0", "the key is UTF-16: write UTF-8"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_not_a_message_is_dead_lettered_with_the_remedy(name):
    value, remedy = VALUES[name]
    assert remedy in error_of(ORDERS, b"o1", value)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_differs_from_the_value_is_dead_lettered_with_the_remedy(name):
    key, remedy = KEYS[name]
    error = error_of(CUSTOMERS, key, CUSTOMER)
    assert "belongs under '7'" in error
    assert remedy in error


@pytest.mark.parametrize(
    ("key", "takes", "error"),
    [
        (b"o1", False, "orders takes none: write the JSON as value"),
        (None, True, "nor a key that names the deleted row"),
        (b"\xff", True, "its key is not UTF-8"),
    ],
)
def test_a_tombstone_that_deletes_nothing_is_dead_lettered_with_the_reason(key, takes, error):
    assert error in error_of(ORDERS, key, None, pytest.fail if takes else None)


def test_a_long_cause_leaves_room_for_the_remedy():
    assert with_remedy("x" * 5000, "do this").endswith("x…; do this")
    assert len(with_remedy("x" * 5000, "do this")) < 1000


def error_of(topic, key, value, on_tombstone=None):
    """What the dead letter says of a record that a service reads."""
    service = Service("reader", (Input(topic, lambda message, ctx: pytest.fail("it was read"), on_tombstone),), ())
    topology = TopologyTestDriver(service)
    topology.send_raw(topic, key, value)
    [letter] = topology.records(topic.dead_letters)
    assert tuple(name for name, _ in letter.headers) == REASON_HEADERS
    return dict(letter.headers)["error"].decode()

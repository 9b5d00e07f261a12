"""Records that other producers may write, and what follows: the table of docs/reference/foreign-records.md."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.common.partitioning import partition_of
from schemas.messages import Customer, Order, OrderValidation, Payment, StockLevel
from schemas.topics import CUSTOMERS, ORDER_VALIDATIONS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY
from tests.foreign.record import Foreign

PARTITIONS = 4
COUNT = 7
"""Of the stock that the cases announce."""

MIB = 1024 * 1024


@dataclass(frozen=True)
class Stock:
    """It is processed: the inventory service has this count of the product; `None`: the product is withdrawn."""

    count: int | None = COUNT


@dataclass(frozen=True)
class Known:
    """It is processed: the customer is known to the e-mail service."""


@dataclass(frozen=True)
class Decided:
    """It is processed: the order is VALIDATED or FAILED."""


@dataclass(frozen=True)
class DeadLettered:
    """It is a dead letter whose error has these words: the cause, then the remedy."""

    words: tuple[str, ...]

    def __init__(self, *words: str) -> None:
        object.__setattr__(self, "words", words)


@dataclass(frozen=True)
class Refused:
    """The broker, or the client, does not take it, and says this."""

    words: str


@dataclass(frozen=True)
class Skipped:
    """It is neither processed nor a dead letter."""


@dataclass(frozen=True)
class Elsewhere:
    """Another test shows it: file and function."""

    test: str


Outcome = Stock | Known | Decided | DeadLettered | Refused | Skipped | Elsewhere


@dataclass(frozen=True)
class Case:
    """A record, who writes it, the topic configuration it needs, and what becomes of it."""

    outcome: Outcome
    writer: str = ""
    record: Foreign | None = None
    config: dict[str, str] = field(default_factory=dict)


CASES: dict[str, Case] = {}


def elsewhere(key: str) -> int:
    """A partition that is not the key's."""
    return (partition_of(key.encode(), PARTITIONS) + 1) % PARTITIONS


def level(product: str, count: int = COUNT) -> bytes:
    return StockLevel(product=product, count=count).to_json()


def stock(
    name: str,
    writer: str,
    outcome: Outcome,
    *,
    value: Callable[[bytes], bytes | None] = lambda raw: raw,
    config: dict[str, str] | None = None,
    **how: Any,
) -> None:
    """A case about a stock level. The product is called like the case; `value` makes of its JSON what is written."""
    record = Foreign(WAREHOUSE_INVENTORY.name, name.encode(), value(level(name)))
    if not {"partition", "partitioner"} & how.keys() and writer == "librdkafka":
        how["partitioner"] = "murmur2_random"
    CASES[name] = Case(outcome, writer, replace(record, **how), config or {})


def order(name: str, writer: str, outcome: Outcome, **how: Any) -> None:
    """A case about an order."""
    content = Order(id=name, customer_id=1, product="none", quantity=1, price=1)
    how = {"partition": partition_of(name.encode(), PARTITIONS), **how}
    CASES[name] = Case(outcome, writer, replace(Foreign(ORDERS.name, name.encode(), content.to_json()), **how))


def changed(before: bytes, after: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(before, after)


# Codecs
for codec in ("gzip", "snappy", "lz4", "zstd"):
    stock(f"codec {codec} of librdkafka", "librdkafka", Stock(), codec=codec)
stock("codec gzip of kafka-python", "kafka-python", Stock(), codec="gzip")
for codec in ("snappy", "lz4", "zstd"):
    stock(f"codec {codec} of franz-go", "franz-go", Stock(), codec=codec)
stock("codec lz4 of Java", "console", Stock(), codec="lz4", headers=((b"trace", b"7"),))
_COMPACT = {"cleanup.policy": "compact"}
stock("codec of the topic", "librdkafka", Stock(), config={**_COMPACT, "compression.type": "zstd"})

# Partitioners
_MISPLACED = DeadLettered(
    "belongs in partition", "the record is in", "partitioner=murmur2_random", "dead-letters redrive"
)
stock("partitioner of librdkafka (CRC-32)", "librdkafka", _MISPLACED, partitioner="consistent_random")
stock("partitioner of librdkafka set right", "librdkafka", Stock(), partitioner="murmur2_random")
stock("partitioner of kafka-python", "kafka-python", Stock())
stock("partitioner of franz-go", "franz-go", Stock())
stock("partitioner of Java", "console", Stock())
stock("partitioner of Sarama (FNV-1a)", "franz-go", _MISPLACED, partitioner="sarama")
stock("partition named by the producer", "franz-go", _MISPLACED, partition=elsewhere("partition named by the producer"))
stock("tombstone misplaced", "librdkafka", _MISPLACED, value=lambda _: None, partition=elsewhere("tombstone misplaced"))
CASES["customer misplaced"] = Case(
    _MISPLACED,
    "librdkafka",
    Foreign(
        CUSTOMERS.name,
        b"70",
        Customer(id=70, first_name="A", last_name="B", email="a@example.org", address="x").to_json(),
        partition=elsewhere("70"),
    ),
)
CASES["payment misplaced"] = Case(
    _MISPLACED,
    "librdkafka",
    Foreign(
        PAYMENTS.name,
        b"p1",
        Payment(id="p1", order_id="paid", ccy="EUR", amount=1).to_json(),
        partition=elsewhere("p1"),
    ),
)
order("order misplaced", "librdkafka", _MISPLACED, partition=elsewhere("order misplaced"))
CASES["topic with more partitions"] = Case(
    Elsewhere(
        "tests/integration/test_misplaced.py::test_a_topic_given_more_partitions_is_read_and_its_records_are_redriven"
    )
)

# Headers
stock("header null", "librdkafka", Stock(), headers=((b"trace", None),))
stock(
    "header null of a dead letter",
    "librdkafka",
    DeadLettered("JSON"),
    value=lambda _: b"?",
    headers=((b"trace", None),),
)
stock("header twice", "librdkafka", Stock(), headers=((b"trace", b"1"), (b"trace", b"2")))
stock("header without a name", "librdkafka", Stock(), headers=((b"", b"1"),))
stock("header value that is no text", "librdkafka", Stock(), headers=((b"trace", b"\xff\x00"),))
stock("header name that is no text", "franz-go", DeadLettered("header", "UTF-8"), headers=((b"\xff\xfe", b"1"),))
stock("header as dead letters have them", "librdkafka", Stock(), headers=((b"error", b"x"), (b"partition", b"none")))
stock("header made-at", "librdkafka", Stock(), headers=((b"made-at", b"yesterday"),))

# Keys
order(
    "key null", "librdkafka", DeadLettered("belongs under 'key null'", "the key of orders is the value's id"), key=None
)
order("key empty", "librdkafka", DeadLettered("belongs under", "the key is empty"), key=b"")
stock("key null in a compacted topic", "librdkafka", Refused("INVALID_RECORD"), key=None)
stock("key in quotes", "librdkafka", DeadLettered("without quotes", "StringConverter"), key=b'"key in quotes"')
stock(
    "key in Connect's envelope",
    "librdkafka",
    DeadLettered("envelope of Kafka Connect", "key.converter="),
    key=b'{"schema":{"type":"string","optional":false},"payload":"key in Connect\'s envelope"}',
)
stock(
    "key with a schema id",
    "librdkafka",
    DeadLettered("schema registry's magic byte and schema id 5", "write plain text"),
    key=b"\0\0\0\0\x05key with a schema id",
)
CASES["key as a binary integer"] = Case(
    DeadLettered("belongs under '71'", "binary integer: write its digits as text"),
    "librdkafka",
    Foreign(
        CUSTOMERS.name,
        (71).to_bytes(8, "big"),
        Customer(id=71, first_name="A", last_name="B", email="a@example.org", address="x").to_json(),
    ),
)
stock(
    "key in another Unicode form \u00e9",
    "librdkafka",
    DeadLettered("belongs under"),
    key="key in another Unicode form e\u0301".encode(),
)

# Values
stock("tombstone", "console", Stock(None), value=lambda _: None)
order("tombstone of an order", "librdkafka", DeadLettered("tombstone", "write the JSON as value"), value=None)
order("neither key nor value", "librdkafka", DeadLettered("tombstone"), key=None, value=None)
stock(
    "value empty",
    "librdkafka",
    DeadLettered("the value is empty", "a tombstone has no value at all (null)"),
    value=lambda _: b"",
)
stock(
    "value with a schema id",
    "librdkafka",
    DeadLettered("magic byte and schema id 42", "write plain JSON"),
    value=lambda raw: b"\0\0\0\0\x2a" + raw,
)
stock(
    "value in Connect's envelope",
    "librdkafka",
    DeadLettered("envelope of Kafka Connect", "value.converter.schemas.enable=false"),
    value=lambda raw: b'{"schema":{"type":"struct"},"payload":' + raw + b"}",
)
stock(
    "value encoded twice",
    "librdkafka",
    DeadLettered("JSON within a JSON string", "encode it once"),
    value=lambda raw: json.dumps(raw.decode()).encode(),
)
stock(
    "value with a byte order mark",
    "librdkafka",
    DeadLettered("byte order mark", "without it"),
    value=lambda raw: b"\xef\xbb\xbf" + raw,
)
stock(
    "value in UTF-16",
    "librdkafka",
    DeadLettered("UTF-16", "write UTF-8"),
    value=lambda raw: raw.decode().encode("utf-16"),
)
stock("value not UTF-8", "librdkafka", DeadLettered("JSON"), value=changed(b"value", b"\xff"))
stock(
    "value compressed by the application",
    "librdkafka",
    DeadLettered("compressed with gzip by the application", "compression.type"),
    value=gzip.compress,
)
stock("value an Avro file", "librdkafka", DeadLettered("Avro", "write JSON"), value=lambda raw: b"Obj\x01" + raw)
stock("value with white space around", "console", Stock(), value=lambda raw: b"  " + raw + b" ")
stock("field twice", "librdkafka", Stock(8), value=changed(b'"count":7', b'"count":7,"count":8'))
stock("field unknown", "librdkafka", Stock(), value=changed(b"{", b'{"warehouse":"B",'))
stock(
    "field missing",
    "librdkafka",
    DeadLettered("count is missing", "`orders asyncapi`"),
    value=changed(b"count", b"pieces"),
)
stock(
    "field in another case",
    "librdkafka",
    DeadLettered("product is missing"),
    value=changed(b"product", b"Product"),
)
stock(
    "number as a string",
    "librdkafka",
    DeadLettered("count must be a whole number"),
    value=changed(b":7", b':"7"'),
)
stock("number with a fraction of zero", "librdkafka", DeadLettered("count"), value=changed(b":7", b":7.0"))
stock("number too large", "librdkafka", DeadLettered("must be at most"), value=changed(b":7", b":1" + b"0" * 40))
stock("NaN", "librdkafka", DeadLettered("count"), value=changed(b":7", b":NaN"))
stock("value nested deep", "librdkafka", DeadLettered("JSON"), value=lambda _: b"[" * 30_000)

# Sizes
_LARGE = {**_COMPACT, "max.message.bytes": str(8 * MIB)}
stock(
    "size above what the client fetches",
    "librdkafka",
    Stock(),
    config=_LARGE,
    value=changed(b"{", b'{"x":"' + b"x" * 3 * MIB + b'",'),
)
stock(
    "size above what a dead letter holds",
    "librdkafka",
    DeadLettered("JSON"),
    config=_LARGE,
    value=lambda _: b"x" * 3 * MIB,
)
stock("size large once unpacked", "franz-go", DeadLettered("JSON"), codec="zstd", value=lambda _: b"x" * 12 * MIB)
stock("size above what the topic accepts", "franz-go", Refused("MESSAGE_TOO_LARGE"), value=lambda _: b"x" * 3 * MIB)

# Times
stock("time -1", "librdkafka", Stock(), timestamp_ms=-1)
stock("time in seconds", "franz-go", Stock(), timestamp_ms=1_795_863_176)
stock("time in the far future", "librdkafka", Refused("INVALID_TIMESTAMP"), timestamp_ms=253_370_764_800_000)
_ANY_TIME = {**_COMPACT, "message.timestamp.after.max.ms": str(2**63 - 1)}
stock("time in the far future, allowed", "librdkafka", Stock(), timestamp_ms=253_370_764_800_000, config=_ANY_TIME)
stock(
    "time in microseconds, allowed",
    "librdkafka",
    DeadLettered("time", "milliseconds"),
    timestamp_ms=1_795_863_176_000_000,
    config=_ANY_TIME,
)
stock(
    "time of the log",
    "librdkafka",
    Stock(),
    timestamp_ms=1,
    config={**_COMPACT, "message.timestamp.type": "LogAppendTime"},
)

# Transactions
stock("transaction committed", "librdkafka", Stock(), transaction="commit")
stock("transaction aborted", "franz-go", Skipped(), transaction="abort")

# Copies of topics
CASES["processed already by its header"] = Case(
    Skipped(),
    "librdkafka",
    Foreign(
        ORDER_VALIDATIONS.name,
        b"processed already by its header",
        OrderValidation(
            order_id="processed already by its header", check_type="FRAUD_CHECK", validation_result="PASS"
        ).to_json(),
        headers=((b"consumed-by", b"{group}"),),
        partitioner="murmur2_random",
    ),
)
CASES["prefixed topic of MirrorMaker"] = Case(
    Skipped(), "librdkafka", Foreign("us-west." + WAREHOUSE_INVENTORY.name, b"mug", level("mug"), partition=0)
)
CASES["among the dead letters"] = Case(
    Skipped(), "librdkafka", Foreign(ORDERS.dead_letters, b"o1", b"?", headers=((b"not", b"ours"),), partition=0)
)
order("order written past the API", "kafka-python", Decided())

"""Database model of the history service. The migrations lead to it."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

from runtime.sink.tables import sink_tables

MODELS = MetaData()

LOGS, OFFSETS = sink_tables(MODELS)
"""`LOGS` names the topic of a record: `records.log` is `sink_logs.id`."""


def _time(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


RECORDS = Table(
    "records",
    MODELS,
    # In the order in which they take the least space: PostgreSQL aligns columns of eight bytes.
    _time("produced_at", nullable=False),
    _time("stored_at", nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("log", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("stage", Text, nullable=False),
    Column("order_id", Text),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", ARRAY(LargeBinary, dimensions=1)),
    PrimaryKeyConstraint("log", "partition", "offset", "produced_at", name="records_pkey"),
    postgresql_partition_by="RANGE (produced_at)",
)
"""One row per record, as it was written. Its partitions are months of `produced_at`, in UTC; `records_default` has
records of other times.

- `log`, `partition`, `offset`: where it lies. They are unique: `sink_offsets` is advanced in the same transaction.
- `stage`: what the record says, see `history_service/stages.py`.
- `order_id`: the order that it is about; null for records of customers, products and stock.
- `key`, `value`: bytes, null as in Kafka. A record without value is a tombstone.
- `headers`: name, value, name, value, in their order, names in UTF-8; a value may be null. Null without headers.
- `produced_at`: timestamp of the record; 1970-01-01 if it has none.
"""

Index("records_of_order", RECORDS.c.order_id, RECORDS.c.produced_at, postgresql_where=RECORDS.c.order_id.is_not(None))
Index(
    "records_of_key",
    *(RECORDS.c.log, RECORDS.c.key, RECORDS.c.produced_at),
    postgresql_where=RECORDS.c.order_id.is_(None),
)

ORDERS = Table(
    "orders",
    MODELS,
    Column("id", Text, primary_key=True),
    _time("created_at"),
    _time("updated_at", nullable=False),
    Column("customer_id", BigInteger),
    Column("quantity", BigInteger),
    Column("state_offset", BigInteger),
    Column("state_log", Integer),
    Column("attempt", Integer, nullable=False),
    Column("state_rank", SmallInteger),
    Column("state", Text),
    Column("product", Text),
    Column("price", Numeric),
    Column("value", Numeric),
    Column("reasons", ARRAY(Text, dimensions=1)),
    Column("failed_checks", ARRAY(Text, dimensions=1)),
    _time("posted_at"),
    _time("judged_at"),
    _time("validated_at"),
    _time("failed_at"),
    _time("paid_at"),
    _time("checked_in_at"),
    _time("fulfilled_at"),
    _time("shipped_at"),
    _time("cancellation_requested_at"),
    _time("cancelled_at"),
    _time("refunded_at"),
    _time("enriched_at"),
    postgresql_with={"fillfactor": "80"},
)
"""One row per order: its latest state, and the times of its stages, as far as its records are stored.

Records of several topics arrive in any order. Each column merges by a rule that gives the same result in every order
(`history_service/projection.py`), so that records may also be projected again.

- `created_at`: `createdAt` of the order, the same in all its records. Null as long as only other topics have named the
  order: lists leave such rows out.
- `updated_at`: when the last of its records was produced.
- `customer_id`, `product`, `quantity`, `price`, `value`, `state`, `reasons`: of the record in `orders` that counts. It
  is the one of the highest `attempt`, then of the last state (`state_rank`: 0 CREATED, 1 VALIDATED, 2 others), then of
  the highest `state_log` and `state_offset`.
- `failed_checks`: all checks that ever gave FAIL or ERROR, sorted.
- the other times: when the first record of each stage was produced. `posted_at`: CREATED; `judged_at`: the first
  verdict; `enriched_at`: the order was joined with its customer, and its e-mail requested.
"""

_LISTED = ORDERS.c.created_at.is_not(None)
Index("orders_by_time", ORDERS.c.created_at, ORDERS.c.id, postgresql_where=_LISTED)
Index("orders_by_state", ORDERS.c.state, ORDERS.c.created_at, ORDERS.c.id, postgresql_where=_LISTED)
Index("orders_by_customer", ORDERS.c.customer_id, ORDERS.c.created_at, ORDERS.c.id, postgresql_where=_LISTED)
Index("orders_by_product", ORDERS.c.product, ORDERS.c.created_at, ORDERS.c.id, postgresql_where=_LISTED)

ORDER_WORDS = Table(
    "order_words",
    MODELS,
    _time("produced_at", nullable=False),
    Column("order_id", Text, nullable=False),
    Column("word", Text, nullable=False),
)
"""What the search for a part of a text looks at, in lower case: the id of an order, its reasons, ids of payments and
refunds, values of headers. A word may be there several times.

Rows are only appended: an index for parts of texts is expensive to change. The function `history_trigrams` of the
migrations stands in for the extension `pg_trgm`, which not every PostgreSQL has. `history_trigrams(word) @>
history_trigrams(lower(:q)) AND word LIKE …` finds parts of three characters or more. A part that very many orders have
is looked for order by order instead, from the newest on (`history_service/lists.py`).
"""

Index("order_words_of_order", ORDER_WORDS.c.order_id)
Index(
    "order_words_trigrams",
    text("history_trigrams(word)"),
    _table=ORDER_WORDS,
    postgresql_using="gin",
)

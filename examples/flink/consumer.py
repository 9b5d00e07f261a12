"""A plain consumer of Flink's result: lists each paid order for confirmation, once. It uses nothing of this project.

A row of `flink-orders-paid` replaces the one before it, and a tombstone withdraws it: so an order may arrive several
times. The list is a table of SQLite by order id; the offset is committed after the row. A crash in between repeats the
row, which changes nothing.
"""

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaException, Message

_TABLE = """
CREATE TABLE IF NOT EXISTS confirmations (
    order_id TEXT PRIMARY KEY, name TEXT, email TEXT, paid REAL, withdrawn INTEGER NOT NULL DEFAULT 0
)
"""
_INSERT = "INSERT OR IGNORE INTO confirmations (order_id, name, email, paid) VALUES (?, ?, ?, ?)"
_SET_WITHDRAWN = "UPDATE confirmations SET withdrawn = ? WHERE order_id = ?"


class ConfirmationConsumer:
    """Consumes paid orders into the table `confirmations` of the SQLite database at `path`."""

    def __init__(self, servers: str, topic: str, group: str, path: Path) -> None:
        self._topic = topic
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",  # what Flink has not committed may never be
            }
        )
        self._database = sqlite3.connect(path)
        self._database.execute(_TABLE)

    def __enter__(self) -> Self:
        self._consumer.subscribe([self._topic])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()
        self._database.close()

    def consume(self, timeout_s: float) -> list[str]:
        """Processes the rows that arrive within `timeout_s`. Returns a line for each order that is new on the list."""
        messages = self._consumer.consume(500, timeout_s)
        with self._database:  # one transaction
            lines = [line for message in messages if (line := self._process(message))]
        if messages:
            self._consumer.commit(asynchronous=False)
        return lines

    def confirmed(self) -> set[str]:
        """Returns the ids of the listed orders that are not withdrawn."""
        return {row[0] for row in self._database.execute("SELECT order_id FROM confirmations WHERE withdrawn = 0")}

    def _process(self, message: Message) -> str | None:
        if error := message.error():
            raise KafkaException(error)
        order_id, value = message.key().decode(), message.value()
        if value is None:
            self._database.execute(_SET_WITHDRAWN, (True, order_id))
            return None
        row: dict[str, Any] = json.loads(value)
        name = f"{row['firstName']} {row['lastName']}"
        if not self._database.execute(_INSERT, (order_id, name, row["email"], row["paid"])).rowcount:
            self._database.execute(_SET_WITHDRAWN, (False, order_id))
            return None
        return f"confirm order {order_id} to {name} <{row['email']}>: {row['paid']:.2f} paid"

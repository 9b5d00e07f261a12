"""The plan of a replay: its records on disk, sorted, with their waves and how often each has been replayed.

A temporary SQLite database holds them, so that a replay of any size takes little memory.
"""

import marshal
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from ecosystem.replay.records import Mark, Place, Resubmission
from ecosystem.replay.stages import ABOUT_NO_ORDER
from history_service.stages import Stage

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    CREATE TABLE records (
        id INTEGER PRIMARY KEY, place TEXT NOT NULL, at INTEGER NOT NULL, rank INTEGER NOT NULL, log INTEGER NOT NULL,
        source TEXT NOT NULL, part INTEGER NOT NULL, pos INTEGER NOT NULL,
        stage TEXT NOT NULL, topic TEXT NOT NULL, key BLOB, value BLOB, headers BLOB NOT NULL, ms INTEGER,
        order_id TEXT, product TEXT, customer INTEGER,
        times INTEGER NOT NULL DEFAULT 0, position INTEGER, wave INTEGER NOT NULL DEFAULT 1,
        UNIQUE (log, part, pos)
    );
    CREATE TABLE replays (place TEXT PRIMARY KEY, times INTEGER NOT NULL);
"""
_INSERT = f"INSERT OR IGNORE INTO records VALUES (NULL, {', '.join('?' * 16)}, 0, NULL, 1)"
_COUNT = "INSERT INTO replays VALUES (?, ?) ON CONFLICT (place) DO UPDATE SET times = max(times, excluded.times)"
_COLUMNS = "source, part, pos, stage, topic, key, value, headers, ms, order_id, product, customer"
_BY_TIME = """
    SELECT id FROM (SELECT id, rank, log, part, pos, max(at) OVER (PARTITION BY log, part ORDER BY pos) AS since
    FROM records) ORDER BY since, rank, log, part, pos
"""
"""Of a partition each record comes after those before it, whatever the clocks of its writers said."""

_RANKS = {stage: rank for rank, stage in enumerate(sorted(Stage, key=lambda stage: stage not in ABOUT_NO_ORDER))}
"""Which of the records of one time come first: what orders depend on, then orders by their way."""


class AmbiguousPlace(Exception):
    """Two records of the plan have one place. The text says which, and the remedy."""


class PlannedRecord(NamedTuple):
    """A record of the plan, with its number of the replay and its wave."""

    record: Resubmission
    replays: int
    wave: int


class Part(NamedTuple):
    """Records of a stage that go to a topic."""

    stage: str
    topic: str
    records: int


class Plan:
    """The records of a replay, in a folder that is deleted by its owner."""

    def __init__(self, folder: Path, max_replays: int) -> None:
        self._max = max_replays
        self._db = sqlite3.connect(folder / "plan.sqlite", isolation_level=None)
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(self, log: int, at_ms: int, record: Resubmission) -> None:
        """Adds a record that was produced at a time. `log` is the number of the log of its original."""
        row = (str(record.place), at_ms, _RANKS.get(Stage(record.stage), len(_RANKS)), log, *record.place,
               record.stage, record.topic, record.key, record.value, marshal.dumps(list(record.headers)),
               record.timestamp_ms, record.order_id, record.product, record.customer_id)  # fmt: skip
        self._db.execute(_INSERT, row)

    def count(self, mark: Mark) -> None:
        """Adds that a record has been replayed."""
        self._db.execute(_COUNT, (str(mark.place), mark.replays))

    def complete(self) -> None:
        """Ends the adding: counts replays, and orders the records by time. Raises `AmbiguousPlace`."""
        self._db.execute("CREATE INDEX by_place ON records (place)")
        twice = self._only("SELECT place FROM records GROUP BY place HAVING count(*) > 1 LIMIT 1")
        if twice is not None:
            raise AmbiguousPlace(
                f"there are two records {twice}: the topic was deleted and made anew. "
                "Replay the records of one of the two at a time, with --from and --to"
            )
        for statement in (
            "UPDATE records SET times = replays.times FROM replays WHERE replays.place = records.place",
            f"CREATE TEMP TABLE sorted (number INTEGER PRIMARY KEY, i INTEGER); INSERT INTO sorted (i) {_BY_TIME}",
            "UPDATE records SET position = number FROM sorted WHERE i = id",
            "CREATE INDEX by_position ON records (wave, position)",
            "CREATE INDEX by_order ON records (order_id, stage)",
        ):
            for one in statement.split(";"):
                self._db.execute(one)

    def exclude(self, sent: Iterable[Place]) -> None:
        """Leaves out records that an earlier run has sent."""
        self._db.executemany("DELETE FROM records WHERE place = ?", ((str(place),) for place in sent))

    def reorder(self, order: Iterable[tuple[int, int]]) -> None:
        """Sets the order of the records: their numbers in it, each with its wave."""
        rows = ((position, wave, id_) for position, (id_, wave) in enumerate(order))
        self._db.executemany("UPDATE records SET position = ?, wave = ? WHERE id = ?", rows)

    def ids(self) -> list[int]:
        """The numbers of the records in their order."""
        return [id_ for (id_,) in self._db.execute("SELECT id FROM records ORDER BY position")]

    def id_of(self, place: Place) -> int | None:
        """The number of a record."""
        found: int | None = self._only("SELECT id FROM records WHERE place = ?", str(place))
        return found

    def id_of_stage(self, order_id: str, *stages: Stage, last: bool = False) -> int | None:
        """The number of the first record of an order of some stages, or of the last one."""
        marks, order = ", ".join("?" * len(stages)), "DESC" if last else "ASC"
        query = f"SELECT id FROM records WHERE order_id = ? AND stage IN ({marks}) ORDER BY position {order} LIMIT 1"
        found: int | None = self._only(query, order_id, *(stage.value for stage in stages))
        return found

    def pairs(self, cause: Stage, consequence: Stage) -> Iterator[tuple[int, int]]:
        """Of each order with records of both stages: the numbers of the first one, and of each other one."""
        query = """
            SELECT c.id, f.id FROM records f JOIN records c ON c.order_id = f.order_id AND c.stage = ?
            WHERE f.stage = ? AND c.position = (
                SELECT min(position) FROM records WHERE order_id = f.order_id AND stage = c.stage)
        """
        return iter(self._db.execute(query, (cause.value, consequence.value)).fetchall())

    def chained(self) -> Iterator[tuple[int, int]]:
        """Numbers of successive records about one order, and of successive ones of a stage about no order."""
        query = """
            SELECT * FROM (
                SELECT lag(id) OVER (
                    PARTITION BY coalesce(order_id, stage || '/' || coalesce(product, customer, '')), order_id IS NULL
                    ORDER BY position) AS before, id FROM records)
            WHERE before IS NOT NULL
        """
        return iter(self._db.execute(query).fetchall())

    def record(self, id_: int) -> Resubmission:
        """A record by its number, without its value."""
        columns = _COLUMNS.replace("value", "NULL")
        [row] = self._db.execute(f"SELECT {columns} FROM records WHERE id = ?", (id_,))
        return _record(row)

    def records(self, limit: int = -1) -> Iterator[PlannedRecord]:
        """The records to be sent, wave by wave, in their order."""
        query = f"SELECT {_COLUMNS}, times, wave FROM records WHERE times < ? ORDER BY wave, position LIMIT ?"
        with closing(self._db.execute(query, (self._max, limit))) as rows:
            for *columns, times, wave in rows:
                yield PlannedRecord(_record(columns), times + 1, wave)

    def exhausted(self, limit: int) -> tuple[int, Sequence[tuple[Place, int]]]:
        """How many records have been replayed too often, and the first of them with their number of replays."""
        count = self._only("SELECT count(*) FROM records WHERE times >= ?", self._max)
        query = "SELECT place, times FROM records WHERE times >= ? ORDER BY position LIMIT ?"
        return count, [(Place.parse(place), times) for place, times in self._db.execute(query, (self._max, limit))]

    def parts(self) -> list[Part]:
        """How many records are to be sent, by stage and topic, in the order of the stages."""
        query = "SELECT stage, topic, count(*) FROM records WHERE times < ? GROUP BY 1, 2"
        parts = [Part(*row) for row in self._db.execute(query, (self._max,))]
        return sorted(parts, key=lambda part: (_RANKS[Stage(part.stage)], part.topic))

    @property
    def total(self) -> int:
        """How many records are to be sent."""
        return sum(part.records for part in self.parts())

    @property
    def waves(self) -> int:
        """The number of waves."""
        return int(self._only("SELECT count(DISTINCT wave) FROM records WHERE times < ?", self._max))

    def topics(self) -> list[str]:
        """The topics that records are sent to."""
        return sorted({part.topic for part in self.parts()})

    def orders(self, stage: Stage) -> list[str]:
        """The orders of records of a stage, each once."""
        query = "SELECT DISTINCT order_id FROM records WHERE stage = ? AND order_id IS NOT NULL AND times < ?"
        return [order_id for (order_id,) in self._db.execute(query, (stage.value, self._max))]

    def _only(self, query: str, *values: Any) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]


def _record(row: Sequence[Any]) -> Resubmission:
    source, part, pos, stage, topic, key, value, headers, ms, order_id, product, customer = row
    pairs = tuple((name, text) for name, text in marshal.loads(headers))  # written by this process
    place = Place(source, part, pos)
    return Resubmission(place, stage, topic, part, key, value, pairs, ms, order_id, product, customer)

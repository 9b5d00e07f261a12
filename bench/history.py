"""Measures how fast the history stores records: rate, what it costs where, bytes per order, time to catch up.

Starts a broker and a PostgreSQL, fills the topics with the records of whole orders (from POST to SHIPPED, one in five
FAILED), starts a worker of the history alone, and watches it until every record is stored.

    python -m bench.history [--orders 50000] [--batch 100]
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import psutil

from bench.recovery import MIB
from ecosystem.embedded.kafka import Cluster
from ecosystem.embedded.ports import free_ports
from ecosystem.embedded.postgres import Postgres
from history_service.stages import TOPIC_STAGES
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.kafka.producers import KafkaTransactionalProducer
from runtime.kafka.topics import ensure_topics, public_topics
from runtime.model.limits import SizeLimits
from runtime.model.records import CONSUMED_BY, EVENT_ID, NO_MEMBER, Write
from schemas import topics
from schemas.identifiers import new_event_id, new_order_id
from schemas.messages import (
    BuiltInCheck,
    CustomerLevel,
    Fulfilled,
    HomeCheckin,
    Order,
    OrderEnriched,
    OrderState,
    OrderValidation,
    Payment,
    ValidationResult,
)
from schemas.topics import Topic
from schemas.wire import Message

POLL_S = 0.5
LIVE = 200
"""Orders a second of a busy shop, to which the time to catch up is compared."""
CORE_MARK = ((CONSUMED_BY, b"details+fraud+inventory+orders"),)


def messages(number: int) -> Iterator[tuple[Topic, Message, tuple]]:
    """The records of an order on its whole way."""
    id_, now = new_order_id(), datetime.now(UTC)
    order = Order(
        id=id_, customer_id=number % 5000, product=f"product-{number % 100}", quantity=1, price="49.99", created_at=now
    )
    failed = number % 5 == 0
    yield topics.ORDERS, order, CORE_MARK
    for check in BuiltInCheck:
        fails = failed and check is BuiltInCheck.FRAUD_CHECK
        verdict = OrderValidation(
            order_id=id_,
            check_type=check,
            validation_result=ValidationResult.FAIL if fails else ValidationResult.PASS,
            reason=f"session of customer {order.customer_id} exceeds 2000: 2{number % 1000:03}.50" if fails else None,
        )
        yield topics.ORDER_VALIDATIONS, verdict, CORE_MARK
    if failed:
        reason = f"{BuiltInCheck.FRAUD_CHECK}: session of customer {order.customer_id} exceeds 2000"
        yield topics.ORDERS, order.model_copy(update={"state": OrderState.FAILED, "reasons": (reason,)}), CORE_MARK
        return
    yield topics.ORDERS, order.model_copy(update={"state": OrderState.VALIDATED}), CORE_MARK
    yield topics.PAYMENTS, Payment(id=new_event_id(), order_id=id_, ccy="EUR", amount="49.99"), ()
    level = [*CustomerLevel][number % 4]
    enriched = OrderEnriched(id=id_, customer_id=order.customer_id, customer_level=level)
    yield topics.ORDERS_ENRICHED, enriched, ()
    yield topics.BY_LEVEL[level], enriched, ()
    check_in = HomeCheckin(
        event_id=new_event_id(),
        internet_no="8850049302",
        order_no=id_,
        staff_code="cs_eng_ftth",
        job_status="homecheckedin",
        checkin_latitude=13.7827811,
        checkin_longitude=100.5465937,
        checkin_date=now,
    )
    yield topics.HOME_CHECKINS, check_in, ((EVENT_ID, check_in.event_id.encode()),)
    yield topics.FULFILMENTS, Fulfilled(order_id=id_), CORE_MARK
    yield topics.ORDERS, order.model_copy(update={"state": OrderState.SHIPPED}), ()


async def fill(settings: Settings, orders: int, batch: int) -> int:
    """Writes the records of orders, a batch of orders per transaction. Returns their number."""
    await ensure_topics(settings, {name: public_topics()[name] for name in TOPIC_STAGES})
    producer = KafkaTransactionalProducer(settings, "bench", "history-bench", SizeLimits())
    await producer.start()
    count = 0
    for start in range(0, orders, batch):
        writes = []
        for number in range(start, min(start + batch, orders)):
            for topic, message, headers in messages(number):
                key = topic.key(message).encode()
                partition = partition_of(key, settings.partitions)
                writes.append(Write(topic.name, partition, key, message.to_json(), headers))
        await producer.transact([writes], {}, NO_MEMBER)
        count += len(writes)
    await producer.end()
    return count


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and its children."""
    total = 0.0
    for member in [process, *process.children(recursive=True)]:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


async def stored(connection: asyncpg.Connection) -> int:
    """Records stored so far; 0 before the tables exist."""
    try:
        return int(await connection.fetchval("SELECT count(*) FROM records"))
    except asyncpg.UndefinedTableError:
        return 0


async def measure(settings: Settings, url: str, home: Path, pids: dict[str, int], args: argparse.Namespace) -> None:
    began = time.monotonic()
    count = await fill(settings, args.orders, args.batch)
    print(f"{args.orders} orders, {count / args.orders:.1f} records each, written in {time.monotonic() - began:.0f} s")
    [port] = free_ports(1)
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "HTTP_PORT": str(port),
        "STATE_DIR": str(home / "state"),
        "HISTORY_DATABASE_URL": url,
    }
    connection = await asyncpg.connect(url)
    with (home / "worker.log").open("ab") as output:
        command = [sys.executable, "-m", "ecosystem.cli", "run", "history"]
        worker = await asyncio.to_thread(
            subprocess.Popen, command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        processes = {name: psutil.Process(pid) for name, pid in {**pids, "worker": worker.pid}.items()}
        while not (first := await stored(connection)):
            if worker.poll() is not None:
                raise RuntimeError((home / "worker.log").read_text())
            await asyncio.sleep(0.05)
        began, before = time.monotonic(), {name: cpu_s(process) for name, process in processes.items()}
        print(f"worker pid {worker.pid}", flush=True)
        offsets = "SELECT sum(end_offset - next_offset) FROM sink_offsets"
        while await connection.fetchval(offsets):  # noqa: ASYNC110 - of another process
            await asyncio.sleep(POLL_S)
        seconds = time.monotonic() - began
        used = {name: cpu_s(process) - before[name] for name, process in processes.items()}
        peak = processes["worker"].memory_info().rss // MIB
        found = await stored(connection)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
    if found != count:
        raise RuntimeError(f"{found} records stored, {count} written: {(home / 'worker.log').read_text()}")
    rate = (count - first) / seconds
    print(f"{count - first} records in {seconds:.1f} s: {rate:,.0f} records/s; worker memory {peak} MiB")
    costs = ", ".join(f"{name} {1e6 * value / (count - first):.0f}" for name, value in used.items())
    print(f"CPU per record in microseconds: {costs}")
    live = LIVE * count / args.orders
    print(f"{rate / live:.1f} times the {live:,.0f} records/s of {LIVE} orders/s: an outage of an hour is caught up in")
    print(f"{60 / (rate / live - 1):.0f} minutes while orders go on" if rate > live else "no time: it falls behind")
    await connection.execute("VACUUM ANALYZE")
    sizes = await connection.fetch(
        "SELECT relname, relkind::text, pg_relation_size(oid) AS bytes FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY bytes DESC"
    )
    total = sum(row["bytes"] for row in sizes)
    print(f"{total / args.orders:,.0f} bytes per order:")
    for row in sizes:
        if row["bytes"] > total / 200:
            print(f"  {row['bytes'] / args.orders:8,.0f} {row['relname']}")
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=50_000, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=100, help="orders per transaction (default: %(default)s)")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder) / "kafka") as cluster,
        Postgres(Path(folder) / "postgres") as server,
    ):
        settings = Settings(kafka_bootstrap_servers=cluster.bootstrap_servers)
        [broker] = cluster.nodes.values()
        pids = {"broker": broker.pid, "PostgreSQL": server.pid}
        asyncio.run(measure(settings, server.database("history"), Path(folder), pids, args))


if __name__ == "__main__":
    main()

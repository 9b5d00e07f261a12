"""Measures `orders what-if` on the records of a synthetic day, and compares its outcomes with those of the day.

The day is made by the services themselves, each a worker of its own in memory. Orders come in rushes; services poll at
random moments, so that orders, stock, payments and changes of products overtake each other; validators are down for
minutes. Prints lines
of JSON: one for the settings that were in force, where the difference must be empty, one for other settings.

    python -m bench.what_if --orders 100000 --shops 10 --folder /tmp/day

Making an order takes longer than judging it. So several shops share the topics, each with the same day, but with
orders, customers and products of its own, some seconds after the shop before.
"""

import argparse
import heapq
import json
import random
import re
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ecosystem.what_if import changes
from ecosystem.what_if.run import Question, judge_in_processes
from ecosystem.what_if.spool import SpoolWriter, read_merged
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition, Write
from runtime.testing import InMemoryWorker, TopologyTestDriver
from schemas.messages import Order, Payment, ProductEvent, StockLevel
from schemas.topics import CANCELLATIONS, HOME_CHECKINS, ORDERS, PAYMENTS, PRODUCTS, WAREHOUSE_INVENTORY, Topic
from schemas.wire import Message
from tests.samples import checked_in

DAY_S = 24 * 3600
GOODS = 300
RUSH, RUSH_S = 1000, 0.004
"""Orders of a rush, and mean time between two of them."""
OTHER = {"fraud_limit": "1500", "validation_deadline_s": "5"}
SHOP_MS = 7001
"""Milliseconds from the day of one shop to that of the next."""
POLL_S = 0.01
"""Mean time between two polls of a service."""


_NAMES = re.compile(rb"\b((?:[pc]-)?(?:o-|good-))(?=\d)")
_CUSTOMER = re.compile(rb'"customerId":')


class Shop(TopologyTestDriver):
    """Services that spool what they and others write, and keep only what is still to be read."""

    def __init__(self, spool: SpoolWriter, partitions: int = 4) -> None:
        super().__init__(*(d.service for d in changes.build(Settings())), partitions=partitions, apart=True)
        self._spool = spool
        self._offsets: Counter[TopicPartition] = Counter()
        self._unread: list[dict[TopicPartition, list[Record]]] = [{} for _ in self.workers]
        [on_cancellation] = [
            i.processor
            for w in self.workers
            for s in w.topology.services
            if s.name == "orders"
            for i in s.inputs
            if i.topic is CANCELLATIONS
        ]
        self._aggregator = on_cancellation.__self__  # type: ignore[attr-defined]

    def write(self, write: Write) -> None:
        tp = TopicPartition(write.topic, write.partition)
        ms = int(self.now.timestamp() * 1000)
        record = Record(write.topic, write.partition, self._offsets[tp], ms, write.key, write.value, write.headers)
        self._offsets[tp] += 1
        self._spool.write(record)
        for worker, unread in zip(self.workers, self._unread, strict=True):
            if tp.topic in worker.topology.consumed:
                unread.setdefault(tp, []).append(record)

    def _poll(self, worker: InMemoryWorker) -> PolledBatch:
        number = self.workers.index(worker)
        taken, self._unread[number] = self._unread[number], {}
        readers = worker.topology.readers
        records = [
            record._replace(processed_by=done)
            for tp, log in taken.items()
            for record in log
            if (done := self._marks.services(record.headers) & readers[tp.topic]) != readers[tp.topic]
        ]
        positions = {tp: log[-1].offset + 1 for tp, log in taken.items()}
        return PolledBatch(records, positions, Membership(1, "in-memory"))

    def put(self, topic: Topic, message: Message) -> None:
        key = topic.key(message).encode()
        self.write(Write(topic.name, partition_of(key, self.partitions), key, message.to_json()))

    def poll(self, number: int) -> None:
        """Lets one service process what waits for it."""
        self._step(self.workers[number])

    def cancel(self, order_id: str) -> None:
        """As `call`, but without waiting until all services are idle."""
        self.run = lambda: None  # type: ignore[method-assign]
        self.call(ORDERS_VIEW, order_id, lambda ctx: self._aggregator.cancel(order_id, "cancelled by the client", ctx))


def make_day(folder: Path, orders: int, seed: int) -> None:
    """Spools the records of a day."""
    dice, started = random.Random(seed), time.perf_counter()
    with SpoolWriter(folder) as spool:
        shop = Shop(spool)
        begin, customers = shop.now, max(orders // 4, 10)
        goods = [f"good-{n}" for n in range(GOODS)]
        versions = dict.fromkeys(goods, 1)
        prices = {good: round(dice.lognormvariate(4, 1), 2) for good in goods}
        for good in goods:
            content = {"event_id": good, "name": good, "price": prices[good], "version": 1, "at": shop.now}
            shop.put(PRODUCTS, ProductEvent(kind="CREATED", code=good, **content))
            shop.put(WAREHOUSE_INVENTORY, StockLevel(product=good, count=3 * orders // GOODS))
        shop.run()
        down_until = {}
        followups: list[tuple[float, str, str, float]] = []
        names = [w.topology.services[0].name for w in shop.workers]
        at = 1.0
        for number in range(orders):
            if number % 10_000 == 9999:
                print(json.dumps({"made": number + 1, "at": round(time.perf_counter() - started)}), flush=True)
            at += dice.expovariate(1 / RUSH_S) if number % RUSH else DAY_S / max(orders // RUSH, 1)
            shop.now = max(shop.now, begin + timedelta(seconds=at))
            good, order_id = dice.choice(goods), f"o-{number:07d}"
            order = Order(
                id=order_id,
                customer_id=int(customers * dice.random() ** 2),
                product=good,
                quantity=dice.choice((1, 1, 1, 2, 3, 8)),
                price=prices[good],
                created_at=shop.now,
            )
            shop.put(ORDERS, order)
            fate = dice.random()
            if fate < 0.3:
                followups.append((at + dice.expovariate(1 / 60), "pay", order_id, float(order.value)))
                followups.append((at + dice.expovariate(1 / 90), "check in", order_id, 0.0))
            elif fate < 0.31:
                followups.append((at + dice.expovariate(2), "cancel", order_id, 0.0))
            if dice.random() < 0.002:
                shop.put(WAREHOUSE_INVENTORY, StockLevel(product=good, count=dice.randint(0, 3 * orders // GOODS)))
            if dice.random() < 0.0005:
                versions[good] += 1
                kind = dice.choice(("UPDATED", "UPDATED", "WITHDRAWN"))
                content = {"event_id": f"{good}/{versions[good]}", "name": good, "price": prices[good], "at": shop.now}
                shop.put(PRODUCTS, ProductEvent(kind=kind, code=good, version=versions[good], **content))
            if dice.random() < 20 / orders:
                down_until[dice.choice(("fraud", "inventory", "details"))] = at + dice.choice((4, 20, 90))
            if len(followups) > 200:
                followups.sort()
                while followups and followups[0][0] <= at:
                    _, what, id_, value = followups.pop(0)
                    if what == "pay":
                        shop.put(PAYMENTS, Payment(id=f"p-{id_}", order_id=id_, ccy="EUR", amount=value))
                    elif what == "cancel":
                        shop.cancel(id_)
                    else:
                        shop.put(HOME_CHECKINS, checked_in(f"c-{id_}", id_))
            for index in dice.sample(range(len(names)), len(names)):
                if down_until.get(names[index], 0) <= at and dice.random() < RUSH_S / POLL_S:
                    shop.now += timedelta(milliseconds=dice.choice((0, 0, 1, 1, 3)))
                    shop.poll(index)
        for _ in range(20):
            shop.now += timedelta(seconds=10)
            for index in range(len(names)):
                shop.poll(index)


def copy_day(source: Path, folder: Path, shops: int) -> None:
    """Spools the day of one shop as that of several."""
    topics = {path.name.rpartition("@")[0]: 0 for path in source.iterdir()}
    offsets: Counter[TopicPartition] = Counter()
    copies = [map(partial(_of_shop, shop), read_merged(source, topics)) for shop in range(shops)]
    with SpoolWriter(folder) as spool:
        for record in heapq.merge(*copies, key=lambda record: record.timestamp_ms):
            tp = TopicPartition(record.topic, record.partition)
            spool.write(record._replace(offset=offsets[tp]))
            offsets[tp] += 1


def _of_shop(shop: int, record: Record) -> Record:
    names, customer = rb"\g<1>%d-" % shop, rb'"customerId":' + b"%d" % (shop + 1)
    assert record.key is not None
    key = _NAMES.sub(names, record.key)
    value = record.value and _CUSTOMER.sub(customer, _NAMES.sub(names, record.value))
    moved = {"timestamp_ms": record.timestamp_ms + shop * SHOP_MS, "partition": partition_of(key, 4)}
    return record._replace(key=key, value=value, **moved)


def measure(folder: Path, processes: int, changed: dict[str, str]) -> None:
    start = time.perf_counter()
    found = judge_in_processes(Question(folder, 4, changed), processes)
    seconds = time.perf_counter() - start
    line = {
        "set": changed,
        "orders": found.all.orders,
        "states": {state: tally.orders for state, tally in found.before.items()},
        "undecided": found.undecided.orders,
        "changed": found.changed.orders,
        "changed_value": str(found.changed.value),
        "records": found.records,
        "processes": processes,
        "seconds": round(seconds, 1),
        "orders_per_second": round(found.all.orders / seconds),
    }
    print(json.dumps(line), flush=True)
    for case in found.undecided_cases[:5]:
        print(f"undecided: {case}", flush=True)


def run(args: argparse.Namespace) -> None:
    args.folder.mkdir(parents=True, exist_ok=True)
    if not any(args.folder.iterdir()):
        with TemporaryDirectory(dir=args.folder.parent) as one:
            make_day(Path(one), args.orders, args.seed)
            copy_day(Path(one), args.folder, args.shops)
    for changed in ({}, OTHER):
        measure(args.folder, args.processes, changed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000, help="of one shop (default: %(default)s)")
    parser.add_argument("--shops", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--folder", type=Path, required=True, help="for the records; made unless it has some")
    run(parser.parse_args())

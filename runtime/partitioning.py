"""Which partition a key lives in: murmur2, as Kafka's own clients have it, so that other languages agree."""

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(maxsize=65_536)  # aiokafka's murmur2 is pure Python: 20 µs for a UUID, against 0.1 µs from the cache
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFF_FFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition, 0 to `partitions` - 1, of `key` (DefaultPartitioner of org.apache.kafka.clients.producer)."""
    return _hash(key) % partitions

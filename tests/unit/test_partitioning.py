import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.partitioning import partition_of

# What Kafka's own UtilsTest.testMurmur2 holds.
KAFKAS_OWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hash_"), KAFKAS_OWN.items())
@pytest.mark.parametrize("partitions", [1, 4, 7, 1000, 2**31])
def test_a_key_has_the_partition_that_kafkas_java_client_chooses(key, hash_, partitions):
    assert partition_of(key, partitions) == (hash_ & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=300))
def test_a_key_has_the_partition_that_aiokafka_chooses(key):
    assert partition_of(key, 2**31) == murmur2(key) & 0x7FFFFFFF


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_a_key_has_one_of_the_partitions(key, partitions):
    assert 0 <= partition_of(key, partitions) < partitions

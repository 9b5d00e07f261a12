"""Fetch responses are decoded whatever they contain: readable records unchanged, all others with a reason."""

import itertools
import struct
from types import SimpleNamespace

import aiokafka.codec
import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import NoOffsetForPartitionError
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.kafka import clients, decompression
from runtime.kafka.unpacker import MAX_SINGLE_RECORDS, FetchedBatches, TolerantRecords
from runtime.model.dead_letters import LOST_UNTIL
from tests.batches import BEGUN_MS, CODECS, HEAD, batch, flipped, legacy, marker, of_codec, replaced, signed

THREE = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
LEGACY = ("none", "gzip", "snappy", "lz4")
numbers = itertools.count()


class Partition:
    """A partition as a consumer reads it: each fetch begins where the last one ended, until one returns nothing."""

    def __init__(self, *batches, aborted=(), start=0):
        self.tp = TopicPartition(f"topic-{next(numbers)}", 7)
        self.batches = [bytes(raw) for raw in batches]
        self.aborted = list(aborted)
        self.position = start
        self.fetches = 0

    def fetch(self, raw, most=None):
        self.fetches += 1
        records = TolerantRecords(
            self.tp, FetchedBatches(raw), self.aborted, self.position, None, None, True, fetcher.READ_COMMITTED
        )
        found = list(itertools.islice(records, most))
        self.position = records.next_fetch_offset
        return found

    def read(self):
        """All records, up to the end of the last batch."""
        found, last = [], self.batches[-1]
        end = struct.unpack_from(">q", last)[0] + struct.unpack_from(">i", last, 23)[0] + 1
        while self.position < end:
            found += self.fetch(b"".join(self.batches))
            assert self.fetches < 20, f"it stays at {self.position}, and is to get to {end}"
        return found


def readable(records):
    return [(r.offset, r.key, r.value) for r in records if r.unreadable is None]


def reported(records):
    return [(r.offset, r.last_offset) for r in records if r.last_offset is not None]


def test_a_second_error_of_a_partition_does_not_end_the_fetching_of_all():
    fetching = SimpleNamespace(_records={}, _prefetch_backoff=0.1)
    first, second = NoOffsetForPartitionError("first"), NoOffsetForPartitionError("second")
    fetcher.Fetcher._set_error(fetching, "tp", first)
    fetcher.Fetcher._set_error(fetching, "tp", second)
    with pytest.raises(NoOffsetForPartitionError, match="first"):
        fetching._records["tp"].check_raise()


def test_every_consumer_decodes_with_it():
    assert clients.TopicPartition  # type: ignore[attr-defined, truthy-function]
    assert (fetcher.PartitionRecords, fetcher.MemoryRecords) == (TolerantRecords, FetchedBatches)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("start", [10, 12])
def test_every_codec_is_read(codec, start):
    headers = [("trace", b"7"), ("null", None), ("", b""), ("trace", b"8")]
    partition = Partition(batch(10, [(*r, headers) for r in THREE], CODECS[codec]), start=start)

    found = partition.read()

    assert readable(found) == [(10, b"a", b"1"), (11, b"b", b"2"), (12, b"c", b"3")][start - 10 :]
    assert all(r.headers == tuple(headers) for r in found)
    assert found[-1].timestamp == BEGUN_MS + 2
    assert partition.position == 13


@pytest.mark.parametrize(("version", "codec"), [(0, "none"), (0, "gzip"), (0, "snappy"), *((1, c) for c in LEGACY)])
@pytest.mark.parametrize("start", [10, 12])
def test_messages_of_brokers_before_kafka_4_are_read(version, codec, start):
    messages = [legacy(10, THREE, version, CODECS[codec])]
    if codec == "none":
        messages = [legacy(10 + n, [one], version) for n, one in enumerate(THREE)]
    found = Partition(*messages, batch(13, THREE), start=start).read()

    assert readable(found)[:-3] == [(10, b"a", b"1"), (11, b"b", b"2"), (12, b"c", b"3")][start - 10 :]
    assert [r.offset for r in found[-3:]] == [13, 14, 15]
    assert found[0].timestamp == (BEGUN_MS + (start - 10 if codec != "none" else 0) if version else -1)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_damaged_messages_of_brokers_before_kafka_4_are_reported(version, codec):
    damaged = flipped(legacy(12, THREE[:1] if codec == "none" else THREE, version, CODECS[codec]), -1)
    last = 12 if codec == "none" else 14
    found = Partition(damaged, batch(last + 1, THREE), start=12).read()

    assert reported(found) == [(12, last)]
    assert "checksum" in found[0].unreadable
    assert len(readable(found)) == 3


def test_xerial_framing_of_the_java_client_is_read():
    records = bytes(batch(0, THREE)[HEAD:])
    xerial = aiokafka.codec.snappy_encode(records)
    raw = cramjam.snappy.compress_raw(records)

    for payload in (xerial, bytes(raw), xerial + xerial[:16]):
        assert len(readable(Partition(of_codec(0, 2, payload, 3)).read())) == 3


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_every_message_of_an_unknown_codec_is_reported_and_the_next_batch_is_read(codec):
    found = Partition(batch(0, THREE), of_codec(3, codec, b"?", 3), batch(6, THREE)).read()

    assert reported(found) == [(3, 3), (4, 4), (5, 5)]
    assert [offset for offset, _, _ in readable(found)] == [0, 1, 2, 6, 7, 8]
    assert f"codec {codec} is not known" in found[3].unreadable
    assert "send it again" in found[3].unreadable
    assert found[3].headers == ((LOST_UNTIL, b"4"),)
    assert found[3].timestamp == BEGUN_MS


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("harm", ["cut", "empty", "another", "behind"])
def test_a_batch_that_cannot_be_decompressed_is_reported_message_by_message(codec, harm):
    sound = bytes(batch(3, THREE, CODECS[codec])[HEAD:])
    payload = {"cut": sound[:-2], "empty": b"", "another": b"\x1f\x8b" + bytes(40), "behind": sound + b"?!?!?"}[harm]
    partition = Partition(of_codec(3, CODECS[codec], payload, 3), batch(6, THREE), start=3)

    found = partition.read()

    if harm == "behind" and not reported(found):
        assert len(readable(found)) == 6  # some codecs know where they end
    else:
        assert {offset for offset, _ in reported(found)} <= {3, 4, 5}
        assert len(reported(found)) + len(readable(found)) >= 4
    assert [offset for offset, _, _ in readable(found)][-3:] == [6, 7, 8]
    assert partition.fetches <= 4  # its checksum is right: fetching again would not help


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_decompression_bomb_is_reported_and_its_memory_is_never_allocated(codec, monkeypatch):
    monkeypatch.setattr(decompression, "MAX_BYTES", 2**20)
    encode = getattr(aiokafka.codec, f"{codec}_encode")
    found = Partition(of_codec(0, CODECS[codec], encode(bytes(2**22)), 2), batch(2, THREE)).read()

    assert reported(found) == [(0, 0), (1, 1)]
    assert "exceeds 1 MiB" in found[0].unreadable
    assert len(readable(found)) == 3


def test_data_of_the_largest_size_is_decompressed(monkeypatch):
    monkeypatch.setattr(decompression, "MAX_BYTES", 2**20)
    for codec in CODECS.keys() - {"none"}:
        data = bytes(2**20)
        packed = getattr(aiokafka.codec, f"{codec}_encode")(data)
        assert bytes(decompression.decompress(CODECS[codec], packed)) == data


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_batch_is_fetched_again_once_and_then_reported(codec):
    damaged = flipped(batch(3, THREE, CODECS[codec]), HEAD + 2)
    partition = Partition(batch(0, THREE), damaged, batch(6, THREE))

    found = partition.read()

    assert reported(found) == [(3, 3), (4, 4), (5, 5)]
    assert [offset for offset, _, _ in readable(found)] == [0, 1, 2, 6, 7, 8]
    assert "checksum" in found[3].unreadable
    assert all((r.key, r.value) == (None, None) for r in found if r.unreadable)


def test_a_batch_damaged_by_the_network_is_read_at_the_second_fetch():
    partition = Partition()
    sound = batch(0, THREE)

    assert partition.fetch(bytes(flipped(sound, HEAD + 2))) == []
    assert partition.position == 0
    assert len(readable(partition.fetch(bytes(sound)))) == 3


def test_an_inconsistent_header_affects_its_batch_only():
    damaged = batch(3, THREE)
    struct.pack_into(">i", damaged, 23, 2**30)  # the delta of the last offset
    found = Partition(batch(0, THREE), damaged, batch(6, THREE), start=0).read()

    assert reported(found) == [(3, 5)]
    assert "from offset 3 to 5" in found[3].unreadable
    assert [offset for offset, _, _ in readable(found)] == [0, 1, 2, 6, 7, 8]


@pytest.mark.parametrize("length", [-1, 0, 5, 48, 2**31 - 1, 10_000])
@pytest.mark.parametrize("first", [True, False])
def test_an_invalid_length_affects_its_batch_only(length, first):
    damaged = batch(3, THREE)
    struct.pack_into(">i", damaged, 8, length)
    before = [] if first else [batch(0, THREE)]
    partition = Partition(*before, damaged, batch(6, THREE), start=3 if first else 0)

    found = partition.fetch(b"".join(partition.batches))
    while partition.position < 9:  # a broker begins with the batch that has the position
        found += partition.fetch(b"".join(partition.batches[-2:]))
        assert partition.fetches < 20

    assert reported(found) == [(3, 5)]
    assert [offset for offset, _, _ in readable(found)][-3:] == [6, 7, 8]


@pytest.mark.parametrize("version", [3, 57, 127])
def test_an_unknown_version_affects_its_batch_only(version):
    damaged = batch(0, THREE)
    damaged[16] = version
    partition = Partition(damaged, batch(3, THREE))

    found = partition.read()

    assert reported(found) == [(0, 2)]
    assert len(readable(found)) == 3


def test_a_damaged_last_batch_is_skipped_offset_by_offset():
    damaged = batch(3, THREE)
    struct.pack_into(">i", damaged, 8, 2**31 - 1)
    partition = Partition(start=3)

    assert [reported(partition.fetch(bytes(damaged))) for _ in range(4)] == [[], [(3, 3)], [], [(4, 4)]]


def test_a_truncated_last_batch_is_left_to_the_next_fetch():
    whole, cut = bytes(batch(0, THREE)), bytes(batch(3, THREE))
    for size in range(len(cut)):
        partition = Partition()
        assert len(readable(partition.fetch(whole + cut[:size]))) == 3
        assert partition.position == 3


def test_an_unreadable_compacted_batch_is_reported_as_one_range():
    compacted = of_codec(10, 6, b"?", 3)
    struct.pack_into(">i", compacted, 23, 499)
    found = Partition(signed(compacted), batch(510, THREE), start=10).read()

    assert reported(found) == [(10, 509)]
    assert found[0].headers == ((LOST_UNTIL, b"510"),)


def test_an_unreadable_huge_batch_is_reported_as_one_range():
    huge = of_codec(0, 6, b"?", 3)
    struct.pack_into(">i", huge, 23, MAX_SINGLE_RECORDS)
    struct.pack_into(">i", huge, 57, MAX_SINGLE_RECORDS + 1)
    assert reported(Partition(signed(huge)).read()) == [(0, MAX_SINGLE_RECORDS)]


def test_unreadable_messages_can_be_polled_a_few_at_a_time():
    partition = Partition(of_codec(0, 6, b"?", 3))
    raw = b"".join(partition.batches)

    assert [reported(partition.fetch(raw, most=2)), reported(partition.fetch(raw, most=2))] == [
        [(0, 0), (1, 1)],
        [(2, 2)],
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_with_an_undecodable_name_affects_its_message_only(codec):
    records = bytes(replaced(batch(0, [(*r, [("zz", b"1"), ("ok", None)]) for r in THREE]), b"zz", b"\xff\xfe")[HEAD:])
    encode = (lambda raw: raw) if codec == "none" else getattr(aiokafka.codec, f"{codec}_encode")
    found = Partition(of_codec(0, CODECS[codec], encode(records), 3), batch(3, THREE)).read()

    assert [offset for offset, _, _ in readable(found)] == [1, 2, 3, 4, 5]
    assert reported(found) == []
    [odd] = [r for r in found if r.unreadable]
    assert (odd.offset, odd.key, odd.value) == (0, b"a", b"1")  # only the name is lost
    assert odd.headers == (("\\xff\\xfe", b"1"), ("ok", None))
    assert "UTF-8" in odd.unreadable


def test_a_record_damaged_within_its_length_affects_itself_only():
    raw = batch(0, [(b"a", b"11111"), (b"b", b"22222"), (b"c", b"33333")])
    at = raw.index(b"22222") - 1
    raw[at] = 90  # its value seems to be longer than the record
    found = Partition(signed(raw), batch(3, THREE)).read()

    assert reported(found) == [(1, 1)]
    assert [offset for offset, _, _ in readable(found)] == [0, 2, 3, 4, 5]


def test_records_after_one_with_a_damaged_length_are_reported():
    raw = batch(0, [(b"a", b"11111"), (b"b", b"22222"), (b"c", b"33333")])
    at = raw.index(b"22222") - 7
    assert raw[at] == raw[HEAD]  # the length of the second
    raw[at] = 127
    found = Partition(signed(raw), batch(3, THREE)).read()

    assert reported(found) == [(1, 1), (2, 2)]
    assert [offset for offset, _, _ in readable(found)] == [0, 3, 4, 5]


@pytest.mark.parametrize(("count", "offsets"), [(2, [(2, 2)]), (4, []), (-1, [(0, 2)]), (0, [(0, 2)])])
def test_a_wrong_record_count_is_tolerated(count, offsets):
    raw = batch(0, THREE)
    struct.pack_into(">i", raw, 57, count)
    found = Partition(signed(raw), batch(3, THREE)).read()

    assert [o for first, last in reported(found) for o in range(first, last + 1)] == [
        o for first, last in offsets for o in range(first, last + 1)
    ] or count == 4
    assert [offset for offset, _, _ in readable(found)][-3:] == [3, 4, 5]


def test_damaged_aborted_records_are_skipped_and_committed_ones_after_them_are_read():
    aborted = batch(0, THREE, producer=5, transactional=True)
    committed = batch(4, THREE, producer=5, transactional=True)
    for harmed in (aborted, flipped(aborted, HEAD + 2), signed(of_codec(0, 0x17, b"?", 3))):
        if harmed is not aborted:
            struct.pack_into(">q", harmed, 43, 5)
        partition = Partition(harmed, marker(3, 5), committed, marker(7, 5, committed=True), aborted=[(5, 0)])
        found = partition.read()
        assert [offset for offset, _, _ in readable(found)] == [4, 5, 6]
        assert reported(found) == []
        assert partition.position == 8


def test_a_damaged_control_record_ends_its_transaction_and_is_reported():
    aborted = batch(0, THREE, producer=5, transactional=True)
    committed = batch(4, THREE, producer=5, transactional=True)
    partition = Partition(aborted, flipped(marker(3, 5), HEAD + 3), committed, aborted=[(5, 0)])

    found = partition.read()

    assert reported(found) == [(3, 3)]
    assert [offset for offset, _, _ in readable(found)] == [4, 5, 6]


def test_an_empty_response_has_no_records():
    for raw in (b"", None):
        assert not FetchedBatches(raw).has_next()
        assert FetchedBatches(raw).size_in_bytes() == 0


@given(
    codec=st.sampled_from(list(CODECS.values())),
    harm=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4),
    right=st.booleans(),
)
@example(codec=CODECS["gzip"], harm=[(6, 0x7F), (44, 0xFF)], right=True)
def test_every_offset_is_read_or_reported_whatever_is_damaged_and_the_next_batch_is_read(codec, harm, right):
    headers = [("trace", b"7"), ("null", None)]
    sound = batch(3, [(b"k%d" % n, b"v" * n, headers) for n in range(5)], codec)
    raw = bytearray(sound)
    for at, bits in harm:
        at = 17 + at % (len(raw) - 17)  # a checksum does not cover offset, length and version
        raw[at] ^= bits
    partition = Partition(batch(0, THREE), signed(raw) if right else raw, batch(8, THREE))

    found = partition.read()

    # A damaged batch may claim two billion offsets: a set of all of them would exhaust the memory.
    told = {o for o in range(11) if any(r.offset <= o <= (r.last_offset or r.offset) for r in found)}
    assert {0, 1, 2} <= told
    if not right and bytes(raw) != bytes(sound):
        # A checksum is wrong: every offset is reported, and none of the content is used.
        assert set(range(3, 8)) <= told or partition.aborted or raw[22] & 0x30
        assert [o for o, _, _ in readable(found)] in ([0, 1, 2, 8, 9, 10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])


@given(st.binary(max_size=300), st.booleans())
def test_no_response_raises(raw, whole):
    partition = Partition(start=3)
    for _ in range(3):
        partition.fetch(bytes(batch(0, THREE)) + raw if whole else raw)

from runtime.loop.ownership import Ownership, bucket_of
from runtime.model.records import Membership, TopicPartition
from schemas.topics import ORDERS


def test_nothing_is_fused_into_a_partition_before_its_backlog_is_processed():
    ownership = Ownership()
    tp, other = TopicPartition(ORDERS.name, 0), TopicPartition(ORDERS.name, 1)

    ownership.acquire(Membership(1, "me"), {tp: 5, other: 7}, {tp: 8, other: 7}, {})
    bucket = bucket_of(b"k")
    assert not ownership.fuses(tp, bucket)
    assert ownership.fuses(other, bucket)

    ownership.advance({tp: 7})
    assert not ownership.fuses(tp, bucket)
    ownership.advance({tp: 8})
    assert ownership.fuses(tp, bucket)

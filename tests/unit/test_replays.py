"""Headers of replayed messages."""

from runtime.model.inheritance import NOTHING
from runtime.model.records import REPLAYED_FROM, SIDE_EFFECTS
from runtime.model.replays import is_replayed, suppresses_side_effects
from runtime.model.traces import TRACEPARENT

FROM = (REPLAYED_FROM, b"orders/2/17")
TRACE = (TRACEPARENT, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def test_only_a_replay_suppresses_side_effects():
    assert not suppresses_side_effects(NOTHING)
    assert suppresses_side_effects((FROM,))
    assert suppresses_side_effects((FROM, (SIDE_EFFECTS, b"maybe")))
    assert not suppresses_side_effects((FROM, (SIDE_EFFECTS, b"perform")))


def test_a_trace_is_no_replay():
    assert not is_replayed((TRACE,))
    assert not suppresses_side_effects((TRACE,))
    assert suppresses_side_effects((FROM, TRACE))

"""The peers of the bench are built, started and measured. They are fetched from Maven Central, npm and PyPI."""

import pytest

from bench.comparison import kafka_streams, restate
from bench.comparison.rows import SMOKE
from tests.bench_run import compared

PEERS = {"kafka-streams": kafka_streams.missing, "restate": restate.missing}


@pytest.mark.parametrize(
    ("peer", "options"),
    [
        ("kafka-streams", []),
        ("kafka-streams", ["--guarantee", "at_least_once"]),
        ("kafka-streams", ["--layout", "apart"]),
        ("restate", []),
    ],
)
async def test_a_peer_validates_orders_under_each_kind_of_load(peer, options, tmp_path):
    if why := PEERS[peer]():
        pytest.skip(why)
    out = tmp_path / "run.json"
    short = ["--rows", ",".join(SMOKE), "--seconds", "1", "--pairs", "1", "--warm-up", "3"]
    report, _ = await compared(out, "--against", peer, *options, *short)
    [ours, theirs] = report["systems"]
    assert ours == "ours"
    for row, systems in report["rows"].items():
        [measured] = systems[theirs]
        assert measured["errors"] == {}, (row, measured)
        assert measured["ok"] > 0 or row == "idle", (row, measured)

"""The peers of the bench are built, started and measured. They are fetched from Maven Central, npm and PyPI."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from bench.comparison import kafka_streams, restate
from bench.comparison.rows import SMOKE

ROOT = Path(__file__).parents[2]
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
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.compare", "--against", peer, *options, *short, "--json", str(out)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text = (await process.communicate())[0].decode()
    assert process.returncode == 0, text
    report = json.loads(out.read_text())
    [ours, theirs] = report["systems"]
    assert ours == "ours"
    for row, systems in report["rows"].items():
        [measured] = systems[theirs]
        assert measured["errors"] == {}, (row, measured)
        assert measured["ok"] > 0 or row == "idle", (row, measured)

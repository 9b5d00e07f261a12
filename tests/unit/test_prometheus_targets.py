"""`orders up` lists its workers for Prometheus, in the format of `file_sd_configs`."""

import json

from ecosystem.cli.up import prometheus_targets
from ecosystem.cli.up.layout import plan_workers


def test_each_worker_is_a_target_while_everything_runs(tmp_path):
    workers = plan_workers(True, 2, lambda count: range(8080, 8080 + count), ["orders", "fraud"])
    with prometheus_targets.listed(workers, tmp_path) as path:
        assert json.loads(path.read_text()) == [
            {"targets": ["127.0.0.1:8080"], "labels": {"worker": "orders-1"}},
            {"targets": ["127.0.0.1:8081"], "labels": {"worker": "orders-2"}},
            {"targets": ["127.0.0.1:8082"], "labels": {"worker": "fraud-1"}},
            {"targets": ["127.0.0.1:8083"], "labels": {"worker": "fraud-2"}},
        ]
    assert list(tmp_path.iterdir()) == []

"""A real Prometheus with the repository's configuration scrapes what `orders up` runs: every expression has data."""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest

from ecosystem.cli.up.prometheus_targets import FILE
from ecosystem.embedded.ports import free_ports
from tests.integration.test_up import PATIENCE_S, up
from tests.prometheus import MISSING, MONITORING, expressions_of_alerts, expressions_of_dashboards

SCRAPE_S = 1


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, url):
        self._url = url

    def ask(self, path, **parameters):
        """The answer's `data`; `None` while it does not answer."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is starting
                return None
            pytest.fail(f"{parameters}: {error.read().decode()}")
        except OSError:
            return None

    def series(self, expr):
        """The series that an expression has now."""
        return self.ask("query", query=expr)["result"]


@contextmanager
def prometheus(data, folder):
    """Prometheus with `monitoring/prometheus.local.yml`: only the folder of data and the interval are others."""
    if shutil.which("prometheus") is None:
        pytest.skip(MISSING)
    shutil.copytree(MONITORING, folder)
    config = folder / "prometheus.local.yml"
    text = config.read_text()
    for before, after in (("../.data/", f"{data}/"), (": 15s", f": {SCRAPE_S}s")):
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)
    [port] = free_ports(1)
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def until(condition, what):
    """The first true value of `condition`, called again and again. `what()` says what is missing."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.25)
    return value


def in_api(expr):
    """An expression of a dashboard as Grafana sends it, for all workers."""
    return expr.replace("$instance", ".*").replace("$__rate_interval", "1m")


def without_limit(expr):
    """The expression of an alert without its limits: what is compared. `up == 0` becomes `up`."""
    return re.sub(r"\s(?:==|!=|>=|<=|>|<)\s[0-9.]+", "", expr)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("max by (topic) (lag) > 60", "max by (topic) (lag)"),
        ("sum(rate(a[5m])) > 0\nand sum(rate(b[5m])) == 0", "sum(rate(a[5m]))\nand sum(rate(b[5m]))"),
        ('a{status=~"5.."} / b > 0.05', 'a{status=~"5.."} / b'),
        ("predict_linear(free[6h], 3 * 24 * 3600) < 0", "predict_linear(free[6h], 3 * 24 * 3600)"),
    ],
)
def test_the_limit_of_an_alert_is_removed(expr, expected):
    assert without_limit(expr) == expected


def test_every_expression_of_dashboards_and_alerts_has_data_while_everything_runs(tmp_path):
    """Each is asked again until it has: rates need two scrapes, and orders take a moment to be shipped."""
    data = tmp_path / "data"
    expressions = {f"alert {name}": without_limit(expr) for name, expr in expressions_of_alerts()}
    expressions |= {f"{where}: {expr}": in_api(expr) for where, expr in expressions_of_dashboards()}
    assert len(expressions) > 100
    missing = dict(expressions)
    with up(data, "--rate", "10"), prometheus(data, tmp_path / "monitoring") as server:
        [target] = json.loads((data / FILE).read_text())
        until(lambda: server.ask("targets") is not None, lambda: "Prometheus does not answer")
        until(
            lambda: [t["health"] for t in server.ask("targets")["activeTargets"]] == ["up"],
            lambda: f"worker not scraped: {target} {server.ask('targets')}",
        )

        def asked():
            for name, expr in list(missing.items()):
                if server.series(expr):
                    del missing[name]
            return not missing

        until(asked, lambda: f"no data: {missing}")
        [worker] = server.series("faust_orders_worker_info")
        assert worker["metric"]["worker"] == "worker-1"
        assert worker["metric"]["guarantee"] == "exactly_once"
        rules = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not (data / FILE).exists()

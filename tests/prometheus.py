"""Prometheus and `promtool`, from the distribution's package `prometheus`, and the expressions of `monitoring/`."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

MONITORING = Path(__file__).parents[1] / "monitoring"
MISSING = "needs Prometheus: apt-get install prometheus"

_WORDS = {"by", "without", "and", "or", "unless", "on", "ignoring", "group_left", "group_right", "offset", "bool"}


def promtool(*arguments, stdin=b"", cwd=None):
    """Runs `promtool`; its errors are in `stdout`, too. Skips the test where it is not installed."""
    if shutil.which("promtool") is None:
        pytest.skip(MISSING)
    run = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd, timeout=120)
    output = (run.stdout + run.stderr).decode()
    return subprocess.CompletedProcess(run.args, run.returncode, output)


def expressions_of_alerts():
    """Name and expression of each alert."""
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def expressions_of_dashboards():
    """Dashboard and title of each panel, with its expression; one for each query."""
    return [
        (f"{model['uid']}: {panel['title']}", target["expr"])
        for path in sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
        for model in [json.loads(path.read_text())]
        for panel in model["panels"]
        for target in panel.get("targets", ())
    ]


def metric_names(expr):
    """The names of the metrics in an expression: its words that are no function, keyword, label or number."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", " ", expr)
    bare = re.sub(r"\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    return {name for name in re.findall(r"\b[a-zA-Z_][a-zA-Z0-9_]*\b(?!\s*\()", bare) if name not in _WORDS}

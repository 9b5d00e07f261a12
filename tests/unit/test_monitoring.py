"""Dashboards, alerts, run book and metrics agree with each other; promtool finds the alerts right."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from monitoring.__main__ import FOLDER
from monitoring.dashboards import DASHBOARDS
from monitoring.grafana_model import COLUMNS, to_json
from tests.prometheus import expressions_of_alerts, expressions_of_dashboards, metric_names, promtool
from tests.unit.test_metrics import families

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RUN_BOOK = ROOT / "docs" / "run-book"
ALERTS = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
TESTS = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
NAMES = [alert["alert"] for alert in ALERTS]

OF_PROMETHEUS = {"up", "ALERTS"}
OF_PYTHON = ("process_", "python_gc_")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


def page(alert):
    """The name of an alert's page in the run book."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert).lower() + ".md"


def series():
    """The names of the series of each metric, by metric."""
    importlib.import_module("runtime.http.metrics")
    return {family.name: {family.name + suffix for suffix in SUFFIXES[family.type]} for family in families()}


# Metrics


@pytest.mark.parametrize(
    ("where", "expr"), [*expressions_of_alerts(), *expressions_of_dashboards()], ids=lambda value: value[:60]
)
def test_a_metric_in_an_alert_or_a_dashboard_exists(where, expr):
    known = {name for names in series().values() for name in names} | OF_PROMETHEUS
    found = {name for name in metric_names(expr) if not name.startswith(OF_PYTHON)}
    assert found - known == set(), where


def test_every_metric_is_in_a_dashboard_or_an_alert():
    used = {name for _, expr in [*expressions_of_alerts(), *expressions_of_dashboards()] for name in metric_names(expr)}
    assert {metric for metric, names in series().items() if not names & used} == set()


# Dashboards


def test_files_of_dashboards_are_up_to_date():
    """`python -m monitoring` writes them."""
    assert {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")} == {
        f"{dashboard.uid}.json": to_json(dashboard) for dashboard in DASHBOARDS
    }


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
def test_panels_do_not_overlap_and_have_a_title_and_a_known_data_source(dashboard):
    model = json.loads(to_json(dashboard))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in model["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < COLUMNS
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    provisioned = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {source["uid"] for source in provisioned["datasources"]}
    targets = [target for panel in model["panels"] for target in panel.get("targets", ())]
    assert {target["datasource"]["uid"] for target in targets} == uids
    assert all(panel["title"] for panel in model["panels"])


# Alerts


def test_alerts_have_different_names():
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{" not in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"] == f"docs/run-book/{page(alert['alert'])}"


def test_the_run_book_has_a_page_for_each_alert_and_no_other():
    assert {path.name for path in RUN_BOOK.glob("*.md")} - {"README.md"} == {page(name) for name in NAMES}


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_a_page_of_the_run_book_is_complete_and_up_to_date(alert):
    text = (RUN_BOOK / page(alert["alert"])).read_text("utf-8")
    assert re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE) == [
        alert["alert"],
        "Meaning",
        "Impact",
        "Look",
        "Mend",
    ]
    assert f"{alert['annotations']['summary']}. Severity: {alert['labels']['severity']}." in text
    assert f"```promql\n{alert['expr'].strip()}\n```" in text
    assert (f"\nFor {alert['for']}.\n" in text) if "for" in alert else "\nFor " not in text


def test_the_index_of_the_run_book_has_each_alert_in_the_order_of_the_file():
    rows = re.findall(r"^\| \[(\w+)\]\((.+)\) \| (\w+) \| (.+) \|$", (RUN_BOOK / "README.md").read_text(), re.MULTILINE)
    assert rows == [
        (a["alert"], page(a["alert"]), a["labels"]["severity"], a["annotations"]["summary"]) for a in ALERTS
    ]


def test_each_alert_has_a_test_in_which_it_is_silent_and_one_in_which_it_fires():
    tested = {}
    for test in TESTS:
        for case in test.get("promql_expr_test", ()):
            [name] = re.findall(r'alertname="(\w+)"', case["expr"])
            assert name == test["name"]
            tested.setdefault(name, set()).add(bool(case["exp_samples"]))
    assert tested == {name: {True, False} for name in NAMES}


def test_promtool_accepts_the_configuration():
    for name in ("prometheus.yml", "prometheus.local.yml"):
        checked = promtool("check", "config", name, cwd=MONITORING)
        assert checked.returncode == 0, checked.stdout


def test_alerts_fire_and_are_silent_as_their_tests_say():
    checked = promtool("test", "rules", "alerts_test.yml", cwd=MONITORING)
    assert checked.returncode == 0, checked.stdout


def test_services_of_compose_that_the_run_book_names_exist():
    services = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])
    text = "\n".join(path.read_text("utf-8") for path in RUN_BOOK.glob("*.md"))
    named = {
        name
        for words in re.findall(r"^docker compose (?:ps|logs --tail \d+) ?(.*)$", text, re.MULTILINE)
        for name in words.split()
    }
    assert named
    assert named <= services
    [workers] = yaml.safe_load((MONITORING / "targets" / "compose.yml").read_text())
    assert {target.partition(":")[0] for target in workers["targets"]} <= services

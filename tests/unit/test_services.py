"""Services are found by their entry points, laid out alike, and rules on the runtime: none has its own timer."""

import ast
import tomllib
from pathlib import Path

import pytest

from ecosystem.entry_points import GROUP
from ecosystem.services import CORE, DATABASES, FOUND, NAMES, SETTINGS

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][GROUP]
FOLDERS = {name: ROOT.joinpath(*value.partition(":")[0].split(".")[:-1]) for name, value in DECLARED.items()}
MODULES = sorted(
    {path for folder in FOLDERS.values() for path in folder.parent.rglob("*.py") if folder.parent != ROOT}
    | {path for folder in FOLDERS.values() for path in folder.rglob("*.py")}
)
NOT_THEIRS = {"aiokafka", "faust", "prometheus_client", "asyncpg", "rocksdict", "threading", "sched"}
"""Libraries used by the runtime only."""
NOR_THESE = {"sleep", "create_task", "ensure_future", "call_later", "call_at", "run_in_executor", "TaskGroup"}
"""Calls that would implement a timer, a poller or a retry loop."""


def test_the_installed_services_are_those_that_the_project_declares():
    installed = {name: [point.value for point in FOUND[name].entry_points] for name in NAMES}
    for name, value in DECLARED.items():
        assert installed.get(name) == [value], "the installation is older than pyproject.toml: make install"


def test_core_databases_and_settings_derive_from_the_services():
    assert set(CORE) == {"orders", "fraud", "inventory", "details"}
    assert {
        name: f"{name.upper()}_DATABASE_URL" for name in ("checkin", "history", "product_log", "products")
    } == DATABASES
    assert [kind.__name__ for kind in SETTINGS["fraud"]] == ["FraudSettings"]
    assert SETTINGS["portal"] == ()


VOCABULARY = {
    "__init__.py",
    "app.py",
    "commands.py",
    "effects.py",
    "http.py",
    "migrations",
    "models.py",
    "processors.py",
    "settings.py",
    "state.py",
    "store.py",
}
"""Names of modules that mean the same in every service: see docs/how-to/add-a-service.md."""
HELPERS = {
    "board": {
        *(
            "dead_letters.py",
            "deployment.py",
            "emails.py",
            "explanations.py",
            "flow.py",
            "observer.py",
            "pages.py",
            "relay.py",
        ),
        *("sessions.py", "stock.py", "streams.py", "timeline.py", "traces.py"),
    },
    "email": {"customer_join.py", "emails.py", "payment_join.py"},
    "history": {
        *("evidence.py", "explain.py", "explanations.py"),
        *("filters.py", "freshness.py", "inputs.py", "lists.py", "maintenance.py", "partitions.py", "projection.py"),
        *("queries.py", "sink.py", "stages.py", "timeline.py", "timings.py"),
    },
    "orders": {"events.py", "queries.py"},
    "products": {"transitions.py"},
    "webhooks": {"dead_letters.py", "events.py", "signatures.py"},
}
"""Further modules, named after a term of the service's domain."""


@pytest.mark.parametrize("name", DECLARED)
def test_modules_have_the_same_names_in_every_service(name):
    modules = {path.name for path in FOLDERS[name].iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert modules - VOCABULARY == HELPERS.get(name, set())


@pytest.mark.parametrize("name", DECLARED)
def test_every_service_is_built_by_its_app(name):
    assert DECLARED[name].endswith(".app:build")
    tree = ast.parse((FOLDERS[name] / "app.py").read_text("utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    assert functions == ["build"]


def test_the_guide_explains_the_names_of_modules():
    guide = (ROOT / "docs/how-to/add-a-service.md").read_text("utf-8")
    assert [name for name in sorted(VOCABULARY - {"__init__.py"}) if f"`{name.removesuffix('.py')}" not in guide] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_service_leaves_timers_topics_and_retries_to_the_runtime(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & NOT_THEIRS
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & NOT_THEIRS
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & NOR_THESE
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_service_mentions_no_processing_guarantee(path):
    text = " ".join(path.read_text("utf-8").replace("_", " ").replace("-", " ").lower().split())
    assert [word for word in ("at least once", "exactly once", "transactional", "guarantee") if word in text] == []


def test_every_service_is_checked():
    assert len(MODULES) > 30

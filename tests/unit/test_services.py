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
    assert {name: f"{name.upper()}_DATABASE_URL" for name in ("checkin", "product_log", "products")} == DATABASES
    assert [kind.__name__ for kind in SETTINGS["fraud"]] == ["FraudSettings"]
    assert SETTINGS["portal"] == ()


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


def test_every_service_is_checked():
    assert len(MODULES) > 30

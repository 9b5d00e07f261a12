"""Services are rules on the runtime: none has its own timer, consumer, producer or retry loop."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for folder in ROOT.iterdir()
    if folder.is_dir() and (folder.name.endswith(("_service", "_subscribers")) or folder.name == "validators")
    for path in folder.rglob("*.py")
)
NOT_THEIRS = {"aiokafka", "faust", "prometheus_client", "asyncpg", "rocksdict", "threading", "sched"}
"""Libraries used by the runtime only."""
NOR_THESE = {"sleep", "create_task", "ensure_future", "call_later", "call_at", "run_in_executor", "TaskGroup"}
"""Calls that would implement a timer, a poller or a retry loop."""


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

"""Modules stay small, and constructors readable at their calls."""

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

MOST_POSITIONAL = 9
"""Arguments of a function by position, `self` included: more are not told apart where they are passed."""

MOST_LINES = 450
"""Lines of the largest module."""


def test_the_packages_of_the_repository_are_found():
    assert {"runtime", "schemas", "orders_service", "validators", "ecosystem"} <= {*PACKAGES}


def test_modules_are_small():
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert median(lines.values()) < 120
    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_takes_ten_arguments_by_position(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not any(
            isinstance(decorator, ast.Call) for decorator in node.decorator_list
        ):
            assert len(node.args.posonlyargs) + len(node.args.args) <= MOST_POSITIONAL, node.name

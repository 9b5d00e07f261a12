"""Private parts of libraries are used with the versions that they were tested with, and bounded in pyproject.toml."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from runtime.kafka.aiokafka_internals import TESTED

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("package", TESTED)
def test_internals_are_used_with_the_version_they_were_tested_with(package):
    assert version(package) == TESTED[package], (
        f"{package} changed: review the modules that TESTED (runtime/kafka/aiokafka_internals.py) names for it against "
        "the new version, run tests/integration, then raise the version in TESTED"
    )


@pytest.mark.parametrize("package", TESTED)
def test_a_library_whose_internals_are_used_has_an_upper_bound(package):
    [requirement] = [r for r in PROJECT["dependencies"] if re.split(r"[\[<>=]", r)[0] == package]

    assert "<" in requirement, f"{requirement}: bound it in pyproject.toml"


def test_every_upper_bound_names_a_tested_version():
    bounded = {re.split(r"[\[<>=]", r)[0] for r in PROJECT["dependencies"] if "<" in r}

    assert bounded == TESTED.keys()

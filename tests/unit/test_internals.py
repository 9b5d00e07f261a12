"""What reaches into aiokafka and Faust holds for the versions it was tested with."""

from importlib.metadata import version

import pytest

from runtime.internals import TESTED


@pytest.mark.parametrize("package", TESTED)
def test_internals_are_used_with_the_version_they_were_tested_with(package):
    assert version(package) == TESTED[package], (
        f"{package} changed: read runtime/internals.py and runtime/transport.py against the new version, run "
        "tests/integration, then raise the version in runtime.internals.TESTED"
    )

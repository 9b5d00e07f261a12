"""What reaches into aiokafka and Faust holds for the versions it was tested with."""

from importlib.metadata import version

import pytest

from runtime.kafka.aiokafka_internals import TESTED


@pytest.mark.parametrize("package", TESTED)
def test_internals_are_used_with_the_version_they_were_tested_with(package):
    assert version(package) == TESTED[package], (
        f"{package} changed: read runtime/kafka/aiokafka_internals.py and runtime/faust_adapter/transport.py against "
        "the new version, run tests/integration, then raise the version in TESTED (aiokafka_internals.py)"
    )

"""The examples in docstrings and in `examples/` do what they say."""

import doctest

import pytest

import ecosystem.audit.history
import history_service.partitions
import runtime.model.context
import runtime.model.service
import runtime.model.timers
import runtime.model.topology
import runtime.sink.placement
import runtime.state.ttl_table
import runtime.testing
import runtime.validator
from examples import minimal_service


def test_the_minimal_service_greets_each_validated_order_once():
    results = doctest.testmod(minimal_service, raise_on_error=True)
    assert results.attempted == 6


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (runtime.model.context, {"Table", "Context"}),
        (runtime.model.timers, {"Timer"}),
        (runtime.model.service, {"", "Service"}),
        (runtime.model.topology, {"Topology"}),
        (runtime.state.ttl_table, {"TtlTable"}),
        (runtime.sink.placement, {"place"}),
        (ecosystem.audit.history, {"differences"}),
        (history_service.partitions, {"Month", "Window.expired"}),
        (runtime.testing, {"TopologyTestDriver"}),
        (runtime.validator, {"validator"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_doctests_of_the_public_interface_run(module, names):
    found = {test.name.removeprefix(module.__name__).lstrip("."): test for test in doctest.DocTestFinder().find(module)}
    assert names <= {name for name, test in found.items() if test.examples}
    for test in found.values():
        doctest.DebugRunner().run(test)

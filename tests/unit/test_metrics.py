"""Every metric can be told apart in a shared Prometheus, and says by itself what it counts."""

import importlib

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from runtime.metrics.loop import LoopMetrics
from runtime.metrics.side_effects import SideEffectMetrics

for _module in ("runtime.database.outbox", "runtime.http.metrics"):
    importlib.import_module(_module)

OF_PYTHON = ("python_", "process_")
UNITS = ("_seconds", "_records", "_offset", "_position", "_partitions")
COUNTED_THINGS = ("_running", "_waiting", "_in_flight", "_tasks", "_blocks", "_stalled")


def families():
    """All metrics of a worker's process, without those that the Prometheus client brings along."""
    own = CollectorRegistry()
    LoopMetrics(own), SideEffectMetrics(own)
    found = {family.name: family for registry in (REGISTRY, own) for family in registry.collect()}
    return [family for name, family in sorted(found.items()) if not name.startswith(OF_PYTHON)]


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_a_metric_has_the_prefix_a_unit_and_a_help_text_of_its_own(family):
    assert family.name.startswith("faust_orders_")
    assert len(family.documentation.split()) >= 2
    if family.type == "gauge":
        assert family.name.endswith((*UNITS, *COUNTED_THINGS))
    elif family.type == "histogram":
        assert family.name.endswith(("_seconds", "_records"))
    else:
        assert family.type == "counter"  # the client appends `_total`

"""Every metric has the prefix, a unit, and a help text that stands alone."""

import importlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from runtime.loop.overlay import BatchOverlay
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.side_effects import SideEffectMetrics
from runtime.model.service import Service
from runtime.model.topology import Topology

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "orders_service", "validators", "fulfilment_service", "email_service")
PACKAGES += ("checkin_service", "portal_service", "products_service", "product_subscribers")
MODULES = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("[a-z]*.py"))
for _module in sorted(MODULES):
    if "migrations" not in _module.parts:  # Alembic runs them, with a context of its own
        importlib.import_module(".".join(_module.with_suffix("").parts))

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
    assert sum(other.documentation == family.documentation for other in families()) == 1
    if family.type == "gauge":
        assert family.name.endswith((*UNITS, *COUNTED_THINGS))
    elif family.type == "histogram":
        assert family.name.endswith(("_seconds", "_records"))
    else:
        assert family.type == "counter"  # the client appends `_total`


def test_observations_of_a_batch_are_in_the_histogram_of_their_stage():
    registry = CollectorRegistry()
    metrics, batch = LoopMetrics(registry), BatchOverlay(Topology((Service("s", (), ()),)), 1, datetime.now(UTC), None)
    batch.observations += [("s", "posted to shipped", 7200.0), ("s", "posted to shipped", 0.2)]
    metrics.batch(batch, 1, 0.0, 0.0)

    def sample(name, **labels):
        labels = {"service": "s", "stage": "posted to shipped", **labels}
        return registry.get_sample_value(f"faust_orders_stage_duration_seconds_{name}", labels)

    assert (sample("count"), sample("sum")) == (2, 7200.2)
    assert (sample("bucket", le="0.25"), sample("bucket", le="3600.0"), sample("bucket", le="14400.0")) == (1, 1, 2)

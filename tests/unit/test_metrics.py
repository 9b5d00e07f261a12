"""Every metric has the prefix, a unit, and a help text that stands alone."""

import importlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from ecosystem.services import NAMES, build
from runtime.common.settings import Settings
from runtime.loop.overlay import BatchOverlay
from runtime.metrics.commits import CommitMetrics
from runtime.metrics.database import DatabaseMetrics, OutboxStatus, PoolStatus
from runtime.metrics.loop import LoopMetrics
from runtime.metrics.side_effects import SideEffectMetrics, SideEffectStatus
from runtime.metrics.sink import SinkMetrics, TopicLag
from runtime.metrics.worker import VERSION, DiskSpace, TableSize, WorkerMetrics, WorkerStatus
from runtime.model.records import TopicPartition
from runtime.model.service import Service
from runtime.model.topology import Topology
from tests.prometheus import promtool

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "orders_service", "validators", "fulfilment_service", "email_service")
PACKAGES += ("checkin_service", "portal_service", "products_service", "product_subscribers")
MODULES = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("[a-z]*.py"))
for _module in sorted(MODULES):
    if "migrations" not in _module.parts:  # Alembic runs them, with a context of its own
        importlib.import_module(".".join(_module.with_suffix("").parts))

OF_PYTHON = ("python_", "process_")
UNITS = ("_seconds", "_records", "_offset", "_position", "_partitions", "_bytes", "_rows")
COUNTED_THINGS = ("_circuits", "_running", "_waiting", "_in_flight", "_tasks", "_blocks", "_stalled", "_limit")
COUNTED_THINGS += ("_connections", "_clients", "_commands")
ONE_OR_ZERO = ("_info", "_ready", "_reachable", "_available")
LABELS = {"effect", "event", "group", "guarantee", "method", "partition", "reason", "revision", "route", "service"}
LABELS |= {"stage", "state", "status", "step", "table", "topic", "version"}
"""Their values are a matter of code and deployment. None is an id of an order, a customer or a product."""


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
        assert family.name.endswith((*UNITS, *COUNTED_THINGS, *ONE_OR_ZERO))
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


# All metrics of all services, each with a sample

ORDERS = TopicPartition("orders", 0)


class Everything:
    """The sources of all gauges, and a topology of all services."""

    service = "history"

    def __init__(self):
        self.registry = CollectorRegistry()
        self.topology = Topology(tuple(definition.service for definition in build(NAMES, Settings())))
        self.commits = CommitMetrics(self.registry)
        self.loop = LoopMetrics(self.registry)
        self.loop.expect(self.topology)
        self.loop.lag({ORDERS: 1}, {ORDERS: 3}, {ORDERS: 2.5})
        self.workers, self.effects = WorkerMetrics(self.registry), SideEffectMetrics(self.registry)
        self.sinks, self.databases = SinkMetrics(self.registry), DatabaseMetrics(self.registry)
        self.workers.add(self)
        self.effects.add(self)
        self.sinks.watch(self)
        self.databases.add(self, "checkin")
        self.databases.add_outbox(self)

    def status(self):
        tables = {"orders-view": TableSize(3, 4096)}
        return WorkerStatus("orders", "exactly_once", "abc", True, None, 5, 6, 7, tables, DiskSpace(50, 100))

    def statuses(self):
        return [SideEffectStatus("email", "letter", 1, 2, 3.0, "")]

    def by_topic(self):
        yield TopicLag("history", "orders", 4, 5.0)

    def pool_status(self):
        return PoolStatus("checkin", False, 2, 1, 5, 3)

    def waiting_status(self):
        return OutboxStatus("checkin", 4, 90.0)

    def value(self, name, **labels):
        return self.registry.get_sample_value(f"faust_orders_{name}", labels)


def test_promtool_finds_nothing_to_improve():
    everything = Everything()
    texts = {generate_latest(everything.registry), generate_latest(REGISTRY)}
    for text in texts:
        checked = promtool("check", "metrics", stdin=text)
        assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout


def test_labels_are_of_a_known_number():
    everything = Everything()
    samples = [sample for family in everything.registry.collect() for sample in family.samples]
    assert {label for sample in samples for label in sample.labels} - {"le"} <= LABELS
    assert len(samples) < 1000


def test_counters_of_what_is_known_ahead_begin_at_zero():
    everything = Everything()
    assert everything.value("service_events_total", service="orders", event="deadline missed") == 0
    assert everything.value("stage_duration_seconds_count", service="orders", stage="posted to shipped") == 0
    assert everything.value("dead_letters_total", topic="orders") == 0
    assert everything.value("dead_letters_total", topic="email-effects") == 0
    assert everything.value("lost_records_total", topic="orders-view-changelog") == 0
    assert everything.value("batches_dropped_total", reason="fenced") == 0
    assert everything.value("commit_step_seconds_count", step="add_partitions") == 0
    assert everything.value("side_effects_failed_attempts_total", service="email", effect="letter") == 0
    assert everything.value("sink_rejected_records_total", service="history") == 0
    assert everything.value("database_failures_total", service="checkin") == 0


def test_gauges_are_computed_at_a_scrape():
    everything = Everything()
    info = {"version": VERSION, "revision": "abc", "guarantee": "exactly_once", "group": "orders"}
    assert everything.value("worker_info", **info) == 1
    assert everything.value("worker_ready") == 1
    assert everything.value("broker_reachable") is None, "it is in no group"
    assert (everything.value("waiting_clients"), everything.value("waiting_commands")) == (5, 6)
    assert everything.value("state_rows", table="orders-view") == 3
    assert everything.value("state_size_bytes", table="orders-view") == 4096
    assert (everything.value("state_disk_free_bytes"), everything.value("state_disk_size_bytes")) == (50, 100)
    assert everything.value("partition_lag_seconds", topic="orders", partition="0") == 2.5
    assert everything.value("database_available", service="checkin") == 0
    assert everything.value("database_connections", service="checkin", state="in_use") == 2
    assert everything.value("database_transactions_waiting", service="checkin") == 3
    assert everything.value("outbox_waiting", service="checkin") == 4
    assert everything.value("outbox_oldest_waiting_seconds", service="checkin") == 90
    everything.workers.remove(everything)
    assert everything.value("worker_ready") is None


def test_dead_letters_are_counted_by_topic():
    registry = CollectorRegistry()
    metrics, batch = LoopMetrics(registry), BatchOverlay(Topology((Service("s", (), ()),)), 1, datetime.now(UTC), None)
    batch.dead_letters.update(["orders", "orders", "payments"])
    metrics.batch(batch, 3, 0.0, 0.0)
    assert registry.get_sample_value("faust_orders_dead_letters_total", {"topic": "orders"}) == 2

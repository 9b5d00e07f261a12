"""Fixtures of all tests. Each starts and imports what it needs only when a test uses it."""

import contextlib
import gc
import os
import secrets
import shutil
from pathlib import Path

import hypothesis  # imported here, not by its plugin as the run ends: there CPython 3.11 may fail (gh-106905)
import pytest

TESTS = Path(__file__).parent

# Tests run many workers at once: none may listen on the well-known port of its service.
os.environ.setdefault("CHECKIN_PORT", "0")

# The run time of an example depends on the machine, not on the code under test.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

SLOW_FILES = (
    "compose/test_compose.py",
    "integration/test_flink.py",
    "e2e/test_replay_a_day.py",
    "integration/test_numbers_pipeline.py",
    "integration/test_lost_records.py",
    "integration/test_legacy_import.py",
    "integration/test_legacy_frontend.py",
    "integration/test_unreadable.py",
    "chaos/test_faults.py",
    "integration/test_secured_kafka.py",
    "integration/test_joining.py",
    "integration/test_history_sink.py",
    "integration/test_history_rebuild.py",
    "integration/test_history_away.py",
    "integration/test_tutorial.py",
    "integration/test_audit.py",
    "chaos/test_stopping.py",
    "chaos/test_fail_points.py",
    "simulation/test_seeds.py",
    "integration/test_watchdog.py",
    "integration/test_bench.py",
    "integration/test_composition.py",
    "integration/test_up.py",
    "integration/test_event_hubs.py",
    "integration/test_example.py",
    "integration/test_standby.py",
    "integration/test_transactions.py",
    "integration/test_kafka.py",
    "integration/test_traces.py",
    "chaos/test_services.py",
    "contracts/test_openapi.py",
    "e2e/test_restarts.py",
    "e2e/test_checkin.py",
    "e2e/test_processes.py",
    "integration/test_output.py",
    "integration/test_side_effects.py",
    "integration/test_foreign_records.py",
    "integration/test_faults.py",
    "contracts/test_asyncapi.py",
    "e2e/test_generate.py",
    "simulation/test_planted.py",
    "simulation/test_lost.py",
    "chaos/test_failover.py",
    "e2e/test_products.py",
)
"""The slowest test files, longest first. Workers of pytest-xdist start them first and so end at about the same time."""


CAMPAIGNS = (
    "chaos/test_broker.py",
    "chaos/test_fail_points.py",
    "chaos/test_failover.py",
    "chaos/test_faults.py",
    "chaos/test_recovery.py",
    "chaos/test_services.py",
    "chaos/test_stopping.py",
    "e2e/test_checkin.py::test_crashes_at_every_outbox_step_lose_duplicate_and_reorder_nothing",
    "e2e/test_replay_a_day.py",
    "integration/test_audit_memory.py",
    "integration/test_bench_peers.py",
    "integration/test_flink.py",
    "integration/test_history_rebuild.py::test_readers_go_on_while_the_history_is_rebuilt_and_switched",
    "integration/test_history_sink.py::test_a_sink_whose_consumer_has_stopped_fetching_gets_a_new_one",
    "integration/test_history_sink.py::test_crashes_outages_zombies_and_rejected_records_lose_and_repeat_nothing",
    "integration/test_joining.py",
    "integration/test_legacy_frontend.py",
    "integration/test_legacy_import.py",
    "integration/test_lost_records.py",
    "integration/test_numbers_pipeline.py",
    "integration/test_output.py",
    "integration/test_quarantine.py::test_a_message_that_fails_after_three_redrives_is_quarantined",
    "integration/test_tutorial.py",
    "integration/test_unreadable.py",
    "integration/test_watchdog.py::test_a_broker_unavailable_longer_than_the_limit_ends_no_worker",
    "integration/test_watchdog.py::test_a_partition_never_fetched_makes_the_worker_unready_then_ends_it",
    "simulation/test_planted.py",
)
"""Test files, and single tests of others, marked `campaign`: `make campaigns` runs them, `make test` does not.

They take half a minute to minutes each.
"""


WITHOUT_CAMPAIGNS = "not campaign"
"""What `make test` selects."""


def pytest_itemcollected(item):
    """Marks the tests of `CAMPAIGNS`."""
    file = item.path.relative_to(TESTS).as_posix() if item.path.is_relative_to(TESTS) else ""
    if file in CAMPAIGNS or f"{file}::{getattr(item, 'originalname', None)}" in CAMPAIGNS:
        item.add_marker(pytest.mark.campaign)


def pytest_terminal_summary(terminalreporter, config):
    """Says how to run the campaigns that were left out."""
    if config.getoption("markexpr") == WITHOUT_CAMPAIGNS:
        terminalreporter.section("left out")
        terminalreporter.line("campaigns, which take minutes, run by `make campaigns`:")
        for name in CAMPAIGNS:
            terminalreporter.line(f"  tests/{name}")


def pytest_collection_modifyitems(config, items):
    """Sorts `SLOW_FILES` to the front in workers of pytest-xdist. A plain run keeps the order of files."""
    if hasattr(config, "workerinput"):
        ranks = {TESTS / name: rank for rank, name in enumerate(SLOW_FILES)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="module")
def small_heap():
    """Lets `gc.collect()` look only at what this module makes: behind thousands of other tests it would take 0.5 s."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """Bootstrap servers of a one-node Kafka for the whole run, or KAFKA_BOOTSTRAP_SERVERS if set."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    from ecosystem.embedded.kafka import Cluster

    home = tmp_path_factory.mktemp("kafka")
    with Cluster(home) as cluster:
        yield cluster.bootstrap_servers
    for node in cluster.nodes.values():
        shutil.rmtree(node.data)  # the broker logs stay, for the analysis of a failure


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A real PostgreSQL for the whole run."""
    from ecosystem.embedded.postgres import Postgres

    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def at_last():
    """An exit stack that is closed after the workers of a test have stopped.

    Databases are dropped there. A drop waits for open connections, whose owners run on the loop that the drop blocks.
    """
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def new_database(postgres, at_last):
    """Makes an empty database for this test. Returns its URL."""

    def made():
        name = f"t_{secrets.token_hex(4)}"
        at_last.callback(postgres.drop, name)
        return postgres.database(name)

    return made


@pytest.fixture
def database_url(new_database):
    """The URL of an empty database for this test."""
    return new_database()


@pytest.fixture
def prefix():
    """A topic prefix for this test: tests share a broker, but no data."""
    return f"t-{secrets.token_hex(4)}-"


@pytest.fixture
async def deployment(kafka, prefix, tmp_path, at_last):  # at_last: closed after the deployment
    """Starts real workers, which are stopped at the end of the test."""
    from tests.workers import Deployment

    async with Deployment(kafka, prefix, tmp_path) as deployment:
        yield deployment

"""What every kind of test may use. Nothing is started, nor imported, for a test that does not ask for it."""

import contextlib
import os
import secrets
import shutil

import hypothesis  # imported here, not by its plugin as the run ends: there CPython 3.11 may fail (gh-106905)
import pytest

# Tests run many workers at once, and leave alone whatever listens on a port of a name.
os.environ.setdefault("CHECKIN_PORT", "0")

# How long an example takes says something about the machine, and nothing about what is tested.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """Bootstrap servers of a real Kafka: one node, fresh, for the whole run; KAFKA_BOOTSTRAP_SERVERS if that is set."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    from ecosystem.embedded.kafka import Cluster

    home = tmp_path_factory.mktemp("kafka")
    with Cluster(home) as cluster:
        yield cluster.bootstrap_servers
    for node in cluster.nodes.values():
        shutil.rmtree(node.data)  # the logs stay, for whoever looks into a failure


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A real PostgreSQL, fresh, for the whole run."""
    from ecosystem.embedded.postgres import Postgres

    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def at_last():
    """What is to be called once the workers of a test have stopped, too.

    A database is dropped then: that waits for whoever is connecting, who waits for the loop, which waits for the drop.
    """
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def new_database(postgres, at_last):
    """Makes an empty database of this test's own; returns its URL."""

    def made():
        name = f"t_{secrets.token_hex(4)}"
        at_last.callback(postgres.drop, name)
        return postgres.database(name)

    return made


@pytest.fixture
def database_url(new_database):
    """The URL of a database of this test's own, empty."""
    return new_database()


@pytest.fixture
def prefix():
    """A topic prefix of this test's own, so that tests share a broker but no data."""
    return f"t-{secrets.token_hex(4)}-"


@pytest.fixture
async def deployment(kafka, prefix, tmp_path, at_last):  # which thus comes after it
    """A place to start real workers in; whatever was started is stopped at the end."""
    from tests.workers import Deployment

    async with Deployment(kafka, prefix, tmp_path) as deployment:
        yield deployment

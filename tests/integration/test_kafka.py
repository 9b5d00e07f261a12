"""The project's own Kafka is a real one: it keeps what it acknowledged, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient

from ecosystem.embedded.kafka import Cluster, KafkaError
from ecosystem.embedded.ports import free_ports, is_open


async def create(servers, topic, copies=1):
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, copies)])
    await admin.close()


async def write(servers, topic, value):
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value, partition=0)


async def read(servers, topic, count):
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        return [(await consumer.getone()).value for _ in range(count)]


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path / "kafka", heap_mb=256) as cluster:
        yield cluster


async def test_a_message_passes_through_the_shared_broker(kafka, prefix):
    await create(kafka, f"{prefix}topic")
    await write(kafka, f"{prefix}topic", b"one")
    assert await read(kafka, f"{prefix}topic", 1) == [b"one"]


async def test_acknowledged_records_survive_a_kill(cluster):
    await create(cluster.bootstrap_servers, "topic")
    await write(cluster.bootstrap_servers, "topic", b"before")
    cluster.kill(1)
    cluster.restart(1)
    await write(cluster.bootstrap_servers, "topic", b"after")
    assert await read(cluster.bootstrap_servers, "topic", 2) == [b"before", b"after"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
async def test_a_data_folder_may_have_any_name_in_any_locale(tmp_path, monkeypatch, locale):
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Xmx1m")  # of the user, for something else
    home = tmp_path / 'a "shop\'s" bücher, 日本 $HOME: 1=2 #! \\u0041 %s'
    for value in (b"first", b"second"):
        with Cluster(home, heap_mb=256) as cluster:
            if value == b"first":
                await create(cluster.bootstrap_servers, "topic")
            await write(cluster.bootstrap_servers, "topic", value)
            assert (await read(cluster.bootstrap_servers, "topic", 1))[0] == b"first"
    assert (home / "1" / "data" / "topic-0").is_dir()
    assert list(tmp_path.iterdir()) == [home]


async def test_a_cluster_started_on_other_ports_finds_the_data(tmp_path):
    with Cluster(tmp_path, heap_mb=256) as first:
        await create(first.bootstrap_servers, "topic")
        await write(first.bootstrap_servers, "topic", b"kept")
    with Cluster(tmp_path, heap_mb=256) as second:
        assert second.bootstrap_servers != first.bootstrap_servers
        assert await read(second.bootstrap_servers, "topic", 1) == [b"kept"]


def test_a_stop_leaves_no_process_and_no_port(tmp_path):
    cluster = Cluster(tmp_path, heap_mb=256).start()
    pid, port = cluster.pid(1), cluster.nodes[1].port
    cluster.stop()
    assert not psutil.pid_exists(pid)
    assert not is_open(port)


async def test_an_additional_listener_has_its_own_advertised_address(tmp_path):
    [elsewhere] = free_ports(1)
    with Cluster(tmp_path, heap_mb=256, listeners={"PROXIED": {1: elsewhere}}) as cluster:
        client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{cluster.listener_port('PROXIED', 1)}")
        await client.bootstrap()
        assert [broker.port for broker in client.cluster.brokers()] == [elsewhere]
        await client.close()


def test_a_data_folder_is_locked_by_one_cluster(cluster):
    with pytest.raises(KafkaError, match=f"started by process {os.getpid()}"):
        Cluster(cluster.home).start()


def test_a_broker_that_cannot_start_reports_the_cause(tmp_path):
    with pytest.raises(KafkaError, match=r"(?s)ended with code 1.*no.such.Reporter"):
        Cluster(tmp_path, properties={"metric.reporters": "no.such.Reporter"}).start()


def lives(process):
    """Whoever adopts an orphan may be slow to reap it: a zombie is dead enough."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel kills children with their parent")
def test_the_broker_ends_with_its_parent_process(tmp_path):
    code = "import sys, time, pathlib; from ecosystem.embedded.kafka import Cluster\n"
    code += "c = Cluster(pathlib.Path(sys.argv[1]), heap_mb=256).start(); print(c.pid(1), flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        broker = psutil.Process(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while lives(broker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(broker)


async def test_three_nodes_keep_working_when_one_is_lost(tmp_path):
    with Cluster(tmp_path, nodes=3, heap_mb=256) as cluster:
        await create(cluster.bootstrap_servers, "topic", copies=3)
        await write(cluster.bootstrap_servers, "topic", b"three")
        cluster.kill(2)
        await write(cluster.bootstrap_servers, "topic", b"two")
        cluster.restart(2)
        assert await read(cluster.bootstrap_servers, "topic", 2) == [b"three", b"two"]

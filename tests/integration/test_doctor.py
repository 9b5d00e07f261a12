"""`orders doctor` on a real Kafka, PostgreSQL and mail server: what is broken is found, and nothing is changed."""

import time

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiosmtpd.controller import Controller

from checkin_service.settings import CheckinSettings
from ecosystem.doctor.databases import check_databases
from ecosystem.doctor.finding import Level
from ecosystem.doctor.run import diagnose
from ecosystem.doctor.surroundings import check_mail
from ecosystem.embedded.ports import free_ports
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.database.pool import Database
from tests.workers import PATIENCE_S, Deployment

IN_AN_HOUR_MS = 3_600_000


def told(findings, *levels):
    return [f"{f.what} | {f.remedy}" for f in findings if f.level in (levels or (Level.PROBLEM, Level.WARNING))]


async def test_a_deployment_that_works_has_no_problem(deployment: Deployment):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=10)
    _, order = await deployment.post(worker, customerId=1, product="JUMPERS", quantity=1, price=1)
    await deployment.outcome(worker, order["id"])
    before = await deployment.records("orders")

    found = await diagnose(worker.settings, PATIENCE_S)

    assert told([f for f in found if f.check != "mail"], Level.PROBLEM) == []
    said = {f.check: f.what for f in found if f.level is Level.OK}
    assert "broker(s) at" in said["broker"]
    assert said["transactions"] == "a coordinator answers"
    assert said["topic settings"] == "as in the catalogue"
    assert said["workers"] == "1 answer at the URLs that they advertise"
    assert said["keys"].endswith("newest records are in the partitions of their keys")
    [missing] = [f.what for f in found if f.check == "topics"]
    assert "are missing: " in missing  # of the services that do not run here
    assert await deployment.records("orders") == before


async def test_workers_of_several_groups_are_found_and_webhooks_need_a_key(deployment: Deployment):
    """A group for each deployment unit, as workers apart have them."""
    await deployment.start("fraud", name="w0")
    worker = await deployment.start("webhooks", name="w1", webhook_keys=32 * "k")

    found = await diagnose(worker.settings, PATIENCE_S)
    said = {f.check: f.what for f in found if f.level is Level.OK}
    assert said["workers"] == "2 answer at the URLs that they advertise"
    assert said["webhooks"] == "WEBHOOK_KEYS has 1 key"

    without = worker.settings.model_copy(update={"webhook_keys": ""})
    assert "WEBHOOK_KEYS is not set" in "\n".join(told(await diagnose(without, PATIENCE_S), Level.PROBLEM))


async def test_what_is_broken_in_topics_is_found(deployment: Deployment):
    worker = await deployment.start()
    await deployment.configure("orders", {"retention.ms": "60000", "cleanup.policy": "delete"})
    await deployment.configure("warehouse-inventory", {"cleanup.policy": "delete"})
    right = partition_of(b"o1", 4)
    await deployment.producer.send_and_wait(deployment.prefix + "orders", b"{}", key=b"o1", partition=(right + 1) % 4)
    later = int(time.time() * 1000) + IN_AN_HOUR_MS
    await deployment.producer.send_and_wait(
        deployment.prefix + "orders", b"{}", key=b"o1", partition=right, timestamp_ms=later
    )
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        await admin.create_partitions({deployment.prefix + "warehouse-inventory": NewPartitions(6)})
    finally:
        await admin.close()

    found = "\n".join(told(await diagnose(worker.settings, PATIENCE_S)))

    assert f"{deployment.prefix}orders: retention.ms is 60000, not " in found
    assert f"{deployment.prefix}warehouse-inventory: cleanup.policy is delete, not compact" in found
    assert f"{deployment.prefix}orders has 1 of the newest records in wrong partitions" in found
    assert "s in the future" in found
    assert f"{deployment.prefix}warehouse-inventory has grown to 6 partitions" in found


async def test_brokers_that_are_of_no_use_are_named(tmp_path):
    found = await diagnose(Settings(kafka_bootstrap_servers="127.0.0.1:1", state_dir=tmp_path), PATIENCE_S)
    assert "nobody answers at 127.0.0.1:1" in told(found, Level.PROBLEM)[0]
    assert {f.check for f in found} == {"settings", "broker", "databases", "mail", "state"}


async def test_more_replicas_than_brokers_are_a_problem(deployment: Deployment):
    found = await diagnose(deployment.settings(replication_factor=3), PATIENCE_S)
    [said] = [line for line in told(found, Level.PROBLEM) if "REPLICATION_FACTOR" in line]
    assert "set REPLICATION_FACTOR=1" in said


async def test_databases(database_url, postgres):
    settings = Settings(checkin_database_url=database_url)
    assert "not migrated yet" in told(await check_databases(settings))[0]
    assert await tables(database_url) == 0  # it has changed nothing

    own = settings.of(CheckinSettings).checkin_database_url
    database = Database("checkin", own, "checkin_service:migrations", settings)
    async with database.open():
        await database.ready(PATIENCE_S)
    found = await check_databases(settings)
    assert told(found) == []
    assert "migrated to " in found[0].what

    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    assert "revision 9999 is unknown" in told(await check_databases(settings), Level.PROBLEM)[0]

    missing = Settings(checkin_database_url=database_url.rpartition("/")[0] + "/nowhere")
    assert "the database does not exist" in told(await check_databases(missing))[0]
    [port] = free_ports(1)
    away = Settings(checkin_database_url=f"postgresql://a:b@127.0.0.1:{port}/c")
    assert "CHECKIN_DATABASE_URL or DB_HOST" in told(await check_databases(away), Level.PROBLEM)[0]


async def tables(url):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()


async def test_mail():
    [port] = free_ports(1)
    controller = Controller(object(), hostname="127.0.0.1", port=port)
    away = await check_mail(Settings(smtp_port=port))
    assert "check SMTP_HOST" in told(away, Level.PROBLEM)[0]
    controller.start()
    try:
        assert told(await check_mail(Settings(smtp_port=port))) == []
        secured = await check_mail(Settings(smtp_port=port, smtp_security="starttls"))
        assert "STARTTLS not offered" in told(secured, Level.PROBLEM)[0]
    finally:
        controller.stop()

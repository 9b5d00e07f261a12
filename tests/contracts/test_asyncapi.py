"""The AsyncAPI document describes exactly the records and configurations of the topics."""

import asyncio
import json

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from jsonschema import Draft7Validator

from ecosystem.services import NAMES, build
from runtime.common.partitioning import partition_of
from runtime.http.asyncapi import document
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.messages import Customer, CustomerLevel, Payment
from schemas.topics import CATALOGUE, CUSTOMERS, ORDERS, PAYMENTS
from tests.contracts.fuzzing import databases
from tests.workers import Deployment, until

NONSENSE = b"{"
CHECK_IN = {
    "internetNo": "8850049302",
    "staffCode": "cs_eng_ftth",
    "jobStatus": "homecheckedin",
    "checkinLatitude": 13.7827811,
    "checkinLongitude": 100.5465937,
    "checkinDate": "2021-03-18 10:13:43",
}


LAYOUTS = {
    "composed": {"apart": False},
    "two composed": {"apart": False, "orders": 2},
    "apart": {"apart": True},
}


@pytest.fixture(params=LAYOUTS)
def layout(request):
    """All services in one worker, in two workers, or apart: headers and internal topics differ."""
    return request.param


@pytest.fixture
async def workers(layout, deployment: Deployment, postgres):
    """The worker of each service."""
    urls = {name.lower(): url for name, url in databases(postgres).items()}
    short = {"checkin_patience_s": 1.0, "payment_deadline_s": 1.0}
    await deployment.start_core(**LAYOUTS[layout], only=NAMES, **short, standby_replicas=0, **urls)
    found = {name: worker for worker in deployment.workers for name in worker.readiness()["services"]}
    await until(lambda: all(_reached(w) for w in deployment.workers), "databases")
    return found


def one_in_each(name):
    """Keys with a prefix, one for each partition."""
    keys = {partition_of(key.encode(), 4): key for key in (f"{name}{number}" for number in range(100))}
    assert len(keys) == 4
    return list(keys.values())


def _reached(worker):
    return set(worker.readiness()["databases"].values()) <= {"open"}


async def test_every_record_matches_the_asyncapi_document(deployment: Deployment, layout, workers):
    settings = deployment.settings()
    whole = json.loads(json.dumps(document(build(NAMES, settings), settings, catalogue=True)))
    await ensure_topics(settings, public_topics())
    await everything_happens(deployment, workers)
    public = {t.name for t in CATALOGUE} - {level for level in CustomerLevel if level is not CustomerLevel.GOLD}
    sent = {
        o["channel"]["$ref"].removeprefix("#/channels/") for o in whole["operations"].values() if o["action"] == "send"
    }
    internal = {name for name, channel in whole["channels"].items() if {"name": "internal"} in channel.get("tags", ())}
    internal = {name for name in internal if not name.startswith("webhooks-")}  # nobody subscribes here
    written = internal if layout == "two composed" else set()  # with one worker, these topics stay empty
    for topic in (*(public & sent), *written, ORDERS.dead_letters):
        await until(lambda topic=topic: deployment.records(topic), f"anything on {topic}")
    for worker in deployment.workers:
        served = (await deployment.ask(worker, "GET", "/asyncapi.json")).json()
        assert served["channels"].items() <= whole["channels"].items()

    faults, seen = [], set()
    channels = whole["channels"]
    for name, records in zip(channels, await asyncio.gather(*map(deployment.records, channels)), strict=True):
        for record in records:
            if (name, record.value) != (ORDERS.name, NONSENSE):
                seen.add(name)
                faults += faults_of(record, channels[name]["messages"], whole["components"])
    assert faults == []
    assert {CUSTOMERS.name, PAYMENTS.name} < seen
    await made_as_documented(deployment, channels)


async def everything_happens(deployment: Deployment, workers):
    """Ships an order, cancels a paid one and unpaid ones, rejects a check-in, lowers a price too far.

    Writes a tombstone and an undecodable record, too.

    Repartitioned records come from every partition.
    """
    product = {"code": "JUMPERS", "name": "Jumpers", "price": 5}
    for code in (product["code"], *one_in_each("JUMPERS-")):
        body = {**product, "code": code}
        assert (await deployment.ask(workers["products"], "POST", "/v1/products", json=body)).status == 201
    cheap = {"name": "Jumpers", "price": 0.01}
    assert (await deployment.ask(workers["products"], "PUT", "/v1/products/JUMPERS", json=cheap)).status == 200
    await deployment.stock(JUMPERS=100)
    franz = Customer(id=15, first_name="Franz", last_name="Kafka", email="franz@example.com", address="Prague")
    await deployment.send(CUSTOMERS, franz.model_copy(update={"level": "gold"}))
    await deployment.send_raw(CUSTOMERS.name, b"16", None)
    await deployment.send_raw(ORDERS.name, b"nonsense", NONSENSE)
    orders = one_in_each("sound-")
    parts = [Payment(id=id_, order_id=orders[0], ccy="EUR", amount=3.75) for id_ in one_in_each("p-")]
    await deployment.send(PAYMENTS, *parts, Payment(id="p", order_id=orders[1], ccy="EUR", amount=15.0))
    for id_ in orders:
        order = {"id": id_, "customerId": 15, "product": "JUMPERS", "quantity": 3, "price": 5}
        assert (await deployment.post(workers["orders"], **order))[0] == 201

    async def known():
        status, body = await deployment.get(workers["fulfilment"], orders[0], "fulfilment")
        return status == 200 and "VALIDATED" not in body["missing"]

    await until(known, "order known where a check-in waits for it a second only")
    for order_no in (orders[0], "unknown"):
        body = {**CHECK_IN, "orderNo": order_no}
        assert (await deployment.ask(workers["checkin"], "POST", "/api/SOA/home/checkin", json=body)).status == 201

    async def shipped():
        return (await deployment.get(workers["orders"], orders[0]))[1]["state"] == "SHIPPED"

    await until(shipped, "shipped")
    assert (await deployment.ask(workers["orders"], "DELETE", f"/v1/orders/{orders[1]}")).status == 200


def faults_of(record, names, components):
    """Schema errors of a record for each message of its channel; none if one message matches."""
    found = []
    for name in names:
        message = components["messages"][name]
        faults = [
            *key_faults(record, message),
            *header_faults(record, message),
            *payload_faults(record, message, components),
        ]
        if not faults:
            return []
        found.append((record.topic, name, faults))
    return found


def key_faults(record, message):
    key = message.get("bindings", {}).get("kafka", {}).get("key", {})
    return [f"key: {error.message}" for error in Draft7Validator(key).iter_errors(record.key.decode())]


def header_faults(record, message):
    schema = {"properties": {}, **message.get("headers", {})}
    headers = {name: value.decode() for name, value in record.headers}
    faults = [f"headers: {error.message}" for error in Draft7Validator(schema).iter_errors(headers)]
    return faults + [f"header {name} is not documented" for name in headers if name not in schema["properties"]]


def payload_faults(record, message, components):
    if message.get("contentType") == "application/octet-stream":
        return []
    value = None if record.value is None else json.loads(record.value)
    validator = Draft7Validator({**message["payload"], "components": components})
    return [f"payload: {error.json_path} {error.message}" for error in validator.iter_errors(value)]


async def made_as_documented(deployment: Deployment, channels):
    """Every topic except changelogs, with its partitions and configuration."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        topics = [t for t in await admin.list_topics() if t.startswith(deployment.prefix)]
        described = await admin.describe_topics(topics)
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics])
    finally:
        await admin.close()
    names = {topic.removeprefix(deployment.prefix) for topic in topics}
    assert {name for name in names if not name.endswith("-changelog")} == set(channels)
    partitions = {t["topic"].removeprefix(deployment.prefix): len(t["partitions"]) for t in described}
    configured = {
        resource[3].removeprefix(deployment.prefix): {entry[0]: entry[1] for entry in resource[4]}
        for answer in answers
        for resource in answer.resources
    }
    for name, channel in channels.items():
        binding = channel["bindings"]["kafka"]
        assert partitions[name] == binding["partitions"]
        for key, wanted in binding["topicConfiguration"].items():
            text = ",".join(wanted) if isinstance(wanted, list) else str(wanted)
            assert configured[name][key] == text, (name, key)


def test_a_record_that_violates_the_asyncapi_document_is_found():
    class Odd:
        topic, key, value = "t", b"x", b'{"a": "1"}'
        headers = (("by-the-way", b""),)

    payload = {"type": "object", "properties": {"a": {"type": "integer"}}}
    message = {"payload": payload, "bindings": {"kafka": {"key": {"type": "string", "pattern": "^[0-9]+$"}}}}
    [(_, _, faults)] = faults_of(Odd, ["m"], {"messages": {"m": message}, "schemas": {}})
    assert [fault.partition(":")[0] for fault in faults] == ["key", "header by-the-way is not documented", "payload"]

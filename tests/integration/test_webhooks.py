"""Webhooks from real workers on a real Kafka to real receivers: signed, in order, and no subscriber delays another."""

import asyncio
import logging
import os
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from ecosystem.clients.api import RequestRejected
from ecosystem.clients.dead_letters.redrive import redrive
from ecosystem.clients.webhooks import WebhooksApi
from ecosystem.embedded.ports import free_ports
from runtime.common.partitioning import partition_of
from schemas.identifiers import new_event_id
from schemas.messages import OrderState
from schemas.topics import ORDERS
from tests.receivers import Receiver
from tests.samples import order
from tests.workers import Deployment, Remote, until
from webhook_service.state import DEAD_LETTER_POSITIONS, SUBSCRIPTIONS, copy_keys

KEYS = {"webhook_keys": "k" * 32, "webhook_allowed_networks": "127.0.0.0/8"}
STATES = (OrderState.VALIDATED, OrderState.SHIPPED)
IN_ORDER = ["order.validated", "order.shipped"]
SOME_WEBHOOK = {"url": "http://127.0.0.1:9/", "events": IN_ORDER}


async def start(deployment: Deployment, **changes):
    return await deployment.start("webhooks", **{**KEYS, **changes})


async def subscribe(deployment, worker, url, *events):
    body = {"url": url, "events": events or IN_ORDER}
    answer = await deployment.repeated(worker, "POST", "/v1/webhooks", json=body)
    assert answer.status == 201, answer
    made = answer.json()
    # A partition that knows it fans out from then on.
    await until(lambda: known_everywhere(deployment, made["id"]), "known in each partition", every=0.05)
    return made


async def known_everywhere(deployment, id_):
    rows = await deployment.rows(SUBSCRIPTIONS)
    return all(key in rows and rows[key].find(id_) for key in copy_keys(4))


async def send(deployment, *ids, states=STATES):
    await deployment.send(ORDERS, *(order(id_, state=state) for id_ in ids for state in states))


def by_order(received):
    found: dict[str, list[str]] = {}
    for one in received:
        id_, type_ = one.what
        found.setdefault(id_, []).append(type_)
    return found


async def attempts(deployment, worker, id_):
    return (await deployment.repeated(worker, "GET", f"/v1/webhooks/{id_}/deliveries")).json()["attempts"]


async def test_an_unknown_webhook_is_not_waited_for(deployment: Deployment):
    worker = await start(deployment)
    made = await subscribe(deployment, worker, "http://127.0.0.1:9/")
    async with WebhooksApi(str(worker.url)) as api:
        assert (await api.deliveries(made["id"])).attempts == ()
        with pytest.raises(RequestRejected, match=r"404 Not Found. There is no webhook 'wh_none'"):
            await api.deliveries("wh_none")
    async with asyncio.timeout(20):  # of the 60 s that it might wait for something else
        answer = await deployment.ask(worker, "GET", "/v1/webhooks/wh_none/deliveries?timeout=60000")
    assert answer.status == 404


async def test_a_webhook_that_was_just_added_is_never_denied(deployment: Deployment):
    worker = await start(deployment)
    for _ in range(20):
        made = (await deployment.repeated(worker, "POST", "/v1/webhooks", json=SOME_WEBHOOK)).json()
        log = f"/v1/webhooks/{made['id']}/deliveries"
        assert (await deployment.ask(worker, "GET", f"{log}?timeout=0")).status in {200, 503}
        assert (await deployment.ask(worker, "GET", log)).status == 200


async def test_a_webhook_with_a_new_id_is_denied_once_its_copy_would_be_there(deployment: Deployment):
    worker = await start(deployment)
    unknown = f"/v1/webhooks/wh_{new_event_id()}/deliveries"

    answer = await deployment.ask(worker, "GET", f"{unknown}?timeout=0")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert (await deployment.ask(worker, "GET", unknown)).status == 404
    assert (await deployment.ask(worker, "GET", f"{unknown}?timeout=0")).status == 404


async def test_deliveries_are_signed_in_order_and_logged(deployment: Deployment, caplog):
    for name in ("runtime", "webhook_service", "aiohttp"):
        caplog.set_level(logging.DEBUG, name)
    ids = [f"o{n}" for n in range(25)]
    async with Receiver() as receiver:
        worker = await start(deployment)
        made = await subscribe(deployment, worker, receiver.url)
        await send(deployment, *ids)
        await until(lambda: len(receiver.accepted) == 50, "all deliveries")
        assert by_order(receiver.accepted) == dict.fromkeys(ids, IN_ORDER)
        assert len(receiver.attempts) == 50
        assert all(received.verifies(made["secret"]) for received in receiver.accepted)
        assert len({received.id for received in receiver.accepted}) == 50

        # A new secret: for a while, both are valid.
        rotated = (await deployment.repeated(worker, "POST", f"/v1/webhooks/{made['id']}/rotate")).json()
        assert rotated["secretVersion"] == 2
        answer = await deployment.repeated(worker, "POST", f"/v1/webhooks/{made['id']}/test")
        assert answer.status == 202
        await until(lambda: len(receiver.accepted) == 51, "the test event")
        last = receiver.accepted[-1]
        assert (last.id, last.event["type"]) == (answer.json()["webhookId"], "webhook.test")
        assert last.verifies(made["secret"])
        assert last.verifies(rotated["secret"])
        assert not last.verifies("whsec_AAAA")

        async def logged():
            found = await attempts(deployment, worker, made["id"])
            return len(found) == 51 and found

        found = await until(logged, "all attempts are in the log", every=0.1)
        assert found[0]["webhookId"] == last.id
        assert {(one["delivered"], one["status"]) for one in found} == {(True, 204)}

        # Secrets are shown once, and never logged.
        listed = await deployment.repeated(worker, "GET", "/v1/webhooks")
        shown = await deployment.repeated(worker, "GET", f"/v1/webhooks/{made['id']}")
        said = listed.body.decode() + shown.body.decode() + caplog.text
        assert made["secret"][6:] not in said
        assert rotated["secret"][6:] not in said
        stored = b"".join(r.value or b"" for r in await deployment.records(SUBSCRIPTIONS.changelog))
        assert made["id"].encode() in stored
        assert made["secret"][6:].encode() not in stored

        assert (await deployment.ask(worker, "DELETE", f"/v1/webhooks/{made['id']}")).status == 204
        assert (await deployment.ask(worker, "GET", f"/v1/webhooks/{made['id']}")).status == 404


async def test_a_dead_and_a_slow_subscriber_delay_nobody_else(deployment: Deployment):
    """The slow one answers within the time after which an attempt counts as slow, and would fill shared slots."""
    ids = [f"o{n}" for n in range(30)]
    async with Receiver() as good, Receiver(pause_s=3) as slow, Receiver(503) as dead:
        worker = await start(deployment, webhook_concurrency=4)
        for receiver in (dead, slow):
            await subscribe(deployment, worker, receiver.url)
        await send(deployment, *ids)
        await until(lambda: slow.open == 4 and len(dead.attempts) > 5, "both are busy")
        await deployment.caught_up("webhooks")

        await subscribe(deployment, worker, good.url)
        more = [f"more{n}" for n in range(30)]
        began = asyncio.get_running_loop().time()
        await send(deployment, *more)
        await until(lambda: len(good.accepted) == 60, "the good one has all")
        took_s = asyncio.get_running_loop().time() - began
        print(f"60 deliveries took {took_s:.2f} s beside a slow and a dead subscriber")
        assert by_order(good.accepted) == dict.fromkeys(more, IN_ORDER)
        assert slow.most_open == 4
        assert len(slow.accepted) < 60, "the slow one was not waited for"
        assert dead.accepted == []

        dead.status = slow.pause_s = 0  # both recover
        dead.status = 204
        await until(lambda: len(dead.accepted) == 120 and len(slow.accepted) == 120, "all of them", every=0.1)
        for receiver in (dead, slow):
            assert by_order(receiver.accepted) == dict.fromkeys(ids + more, IN_ORDER)


async def test_a_failing_delivery_is_retried_dead_lettered_and_redriven_with_its_id(deployment: Deployment):
    refused = {"status": 500}

    def status(received):
        return refused["status"] if received.what == ("bad", "order.validated") else 204

    async with Receiver(status) as receiver:
        worker = await start(deployment, side_effect_timeout_s=3)
        made = await subscribe(deployment, worker, receiver.url)
        await send(deployment, "bad", "good")
        letters = await until(lambda: deployment.records("webhooks-effects.dead-letters"), "a dead letter", every=0.2)
        assert dict(letters[0].headers)["error"] == b"not done within 3 s: the receiver did not accept it: HTTP 500"
        await until(lambda: len(receiver.accepted) == 3, "what comes after it")
        assert by_order(receiver.accepted) == {"good": IN_ORDER, "bad": ["order.shipped"]}
        bad = [received for received in receiver.attempts if received.what == ("bad", "order.validated")]
        assert len(bad) > 1
        assert len({(received.id, received.body) for received in bad}) == 1

        refused["status"] = 204
        assert len((await redrive(deployment.settings(), "webhooks-effects", lambda _: True)).written) == 1
        await until(lambda: len(receiver.accepted) == 4, "the redriven one")
        assert receiver.accepted[-1].id == bad[0].id
        assert receiver.accepted[-1].verifies(made["secret"])
        found = await attempts(deployment, worker, made["id"])
        assert [one["status"] for one in found if one["webhookId"] == bad[0].id][-2:] == [500, 500]


@pytest.mark.parametrize(
    ("url", "network", "why"),
    [
        ("http://localhost:{port}/", "10.0.0.0/8", "address not permitted"),
        ("http://0x7f.1:{port}/", "10.0.0.0/8", "address not permitted"),
        ("http://127.0.0.1:{port}/redirect", "127.0.0.0/8", None),
    ],
    ids=["a name of the loopback", "another spelling", "a redirect"],
)
async def test_nothing_is_sent_where_it_must_not_go(deployment: Deployment, url, network, why):
    async with Receiver(307) as receiver:
        worker = await start(deployment, webhook_allowed_networks=network)
        made = await subscribe(deployment, worker, url.format(port=receiver.port))
        await send(deployment, "o1")

        async def tried():
            return await attempts(deployment, worker, made["id"])

        found = await until(tried, "an attempt", every=0.1)
        if why is None:
            assert found[-1]["status"] == 307
            assert receiver.paths == {"/redirect"}
        else:
            assert found[-1]["error"] == why
            assert receiver.paths == set()


async def test_a_replayed_record_is_silent(deployment: Deployment):
    async with Receiver() as receiver:
        worker = await start(deployment)
        await subscribe(deployment, worker, receiver.url)
        headers = [("replayed-from", b"orders/0/0"), ("replays", b"1")]
        replayed = order("o1", state=OrderState.VALIDATED)
        topic, partition = deployment.prefix + ORDERS.name, partition_of(b"o1", 4)
        await deployment.producer.send_and_wait(topic, replayed.to_json(), b"o1", partition, headers=headers)
        await send(deployment, "o1", states=[OrderState.SHIPPED])
        await until(lambda: receiver.accepted, "the one after it")
        assert by_order(receiver.accepted) == {"o1": ["order.shipped"]}


async def test_a_dead_letter_is_an_event(deployment: Deployment):
    async with Receiver() as receiver:
        worker = await start(deployment)
        await deployment.send_raw(ORDERS.name, b"early", b"no order")
        await until(lambda: deployment.records("orders.dead-letters"), "one that nobody subscribed to", every=0.2)
        made = await subscribe(deployment, worker, receiver.url, "dead_letter.written")
        await until(lambda: deployment.rows(DEAD_LETTER_POSITIONS), "the end is known", every=0.2)
        for key in (b"a", b"b", b"c"):
            await deployment.send_raw(ORDERS.name, key, b"no order, but a secret")
        await until(lambda: len(receiver.accepted) == 3, "three events")
        letters = {
            (r.partition, r.offset) for r in await deployment.records("orders.dead-letters") if r.key != b"early"
        }
        told = [received.event["data"] for received in receiver.accepted]
        assert {(notice["partition"], notice["offset"]) for notice in told} == letters
        assert {(notice["topic"], notice["service"]) for notice in told} == {("orders.dead-letters", "webhooks")}
        assert all(received.verifies(made["secret"]) for received in receiver.accepted)
        assert not any(b"secret" in received.body for received in receiver.accepted)


@asynccontextmanager
async def running(deployment: Deployment, port):
    """A worker in a process of its own, which is killed in the end."""
    mine = {
        "KAFKA_BOOTSTRAP_SERVERS": deployment.servers,
        "TOPIC_PREFIX": deployment.prefix,
        "STATE_DIR": str(deployment.folder / "state"),
        "SESSION_TIMEOUT_S": "6",
        "HEARTBEAT_INTERVAL_S": "0.5",
        "HTTP_PORT": str(port),
        **{name.upper(): value for name, value in KEYS.items()},
    }
    command = (sys.executable, "-m", "ecosystem.cli", "run", "webhooks")
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **mine})
    worker = Remote(f"http://127.0.0.1:{port}")

    async def ready():
        assert process.returncode is None, "ended before it was ready"
        with suppress(aiohttp.ClientError):
            return (await deployment.ask(worker, "GET", "/readyz")).status == 200

    try:
        await until(ready, "ready", every=0.1)
        yield worker
    finally:
        process.kill()
        await process.wait()


async def test_a_killed_worker_delivers_again_with_the_same_id(deployment: Deployment):
    """The receiver has the events, and the worker is killed before it learns that."""
    (port,) = free_ports(1)
    async with Receiver(pause_s=60) as receiver:
        async with running(deployment, port) as worker:
            made = await subscribe(deployment, worker, receiver.url)
            await send(deployment, "o1", "o2", "o3")
            await until(lambda: receiver.open == 3, "three under way")
        first = list(receiver.attempts)
        assert {received.what[1] for received in first} == {"order.validated"}, "what follows waits for them"
        receiver.pause_s = 0
        async with running(deployment, port) as worker:
            await until(lambda: len(receiver.accepted) >= 6, "all of them")
            shown = (await deployment.repeated(worker, "GET", f"/v1/webhooks/{made['id']}")).json()
        assert by_order(receiver.accepted) == dict.fromkeys(["o1", "o2", "o3"], IN_ORDER)
        again = [received for received in receiver.accepted if received.what[1] == "order.validated"]
        assert {(r.id, r.body) for r in again} == {(r.id, r.body) for r in first}
        assert all(received.verifies(made["secret"]) for received in receiver.accepted)
        assert shown["url"] == receiver.url

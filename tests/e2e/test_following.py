"""Clients that follow an order: by one request that waits, or by a stream of its events."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
import pytest

from ecosystem.clients.event_stream import read_events
from schemas.messages import Fulfilled
from schemas.topics import FULFILMENTS
from tests.workers import PATIENCE_S, until

WAIT = {"Prefer": "wait=60"}


class Event(NamedTuple):
    id: str
    name: str
    data: dict


@asynccontextmanager
async def following(shop, order_id, worker, after=None):
    """The events of an order as an async iterator."""
    headers = {} if after is None else {"Last-Event-ID": after}
    url = f"{worker.url.origin()}/v1/orders/{order_id}/events?timeout=60000"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with shop.deployment.http.get(url, headers=headers, timeout=timeout) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield _events(response)


async def _events(response):
    async for event in read_events(response.content):
        yield Event(event.id, event.name, json.loads(event.data))


async def collected(events, count=None):
    result = []
    async for event in events:
        result.append(event)
        if len(result) == count:
            break
    return result


def summary(events):
    return [e.data["state"] if e.name == "state" else e.data["validationResult"] for e in events]


async def post(shop, worker, headers=WAIT, **changes):
    return await shop.deployment.ask(
        worker, "POST", "/v1/orders", json=await shop.sound(**changes), headers=dict(headers)
    )


async def test_one_request_places_an_order_and_has_its_outcome(shop):
    answer = await post(shop, shop.first)
    outcome = answer.json()
    assert (answer.status, outcome["state"], len(outcome["verdicts"])) == (201, "VALIDATED", 3)
    assert answer.headers["Preference-Applied"] == "wait=60"
    assert answer.headers["Location"] == f"/v1/orders/{outcome['id']}"


async def test_an_order_that_fails_is_an_outcome_as_well(shop):
    answer = await post(shop, shop.first, quantity=2000)
    assert (answer.status, answer.json()["state"]) == (201, "FAILED")


@pytest.mark.parametrize("worker", ["first", "last"])
async def test_the_owner_of_an_id_answers_through_any_worker(shop, worker):
    for n in range(4):
        body = await shop.sound(id=f"{worker}-{n}-{shop.customer()}")
        ask = shop.deployment.ask
        answers = [
            await ask(getattr(shop, worker), "POST", "/v1/orders", json=body, headers=dict(WAIT)) for _ in range(2)
        ]
        assert [answer.status for answer in answers] == [201, 200]
        assert [answer.json()["state"] for answer in answers] == ["VALIDATED"] * 2
        assert [answer.headers["Preference-Applied"] for answer in answers] == ["wait=60"] * 2


async def test_another_order_under_the_id_is_refused_although_the_client_waits(shop):
    body = await shop.sound(id=f"taken-{shop.customer()}")
    await shop.deployment.ask(shop.first, "POST", "/v1/orders", json=body, headers=dict(WAIT))
    answer = await shop.deployment.ask(
        shop.first, "POST", "/v1/orders", json={**body, "quantity": 2}, headers=dict(WAIT)
    )
    assert answer.status == 409


async def test_without_the_preference_or_with_a_malformed_one_the_answer_is_the_order(shop):
    for headers in ({}, {"Prefer": "wait=soon"}, {"Prefer": "respond-async"}):
        answer = await post(shop, shop.first, headers)
        assert (answer.status, "verdicts" in answer.json()) == (201, False)
        assert "Preference-Applied" not in answer.headers


async def test_a_preference_for_no_time_is_answered_at_once(shop):
    answer = await post(shop, shop.first, {"Prefer": "wait=0"})
    assert answer.status in {201, 202}
    assert answer.json()["id"]


async def test_the_events_of_an_order_come_in_their_order_until_it_is_shipped(shop):
    order_id = (await shop.order())["id"]
    async with following(shop, order_id, shop.last) as events:
        first = await collected(events, 5)
        assert summary(first) == ["CREATED", "PASS", "PASS", "PASS", "VALIDATED"]
        await shop.deployment.send(FULFILMENTS, Fulfilled(order_id=order_id))
        assert summary(await collected(events)) == ["SHIPPED"]  # and the stream ends


async def test_a_stream_begins_before_the_order_exists(shop):
    order_id = f"awaited-{shop.customer()}"
    reading = asyncio.ensure_future(_read(shop, order_id))
    await asyncio.sleep(0)
    body = await shop.sound(id=order_id, quantity=2000)
    await shop.deployment.post(shop.first, **body)
    events = await reading
    assert summary(events)[0] == "CREATED"
    assert summary(events)[-1] == "FAILED"
    assert events[-1].data["reasons"]


async def _read(shop, order_id):
    async with following(shop, order_id, shop.last) as events:
        return await collected(events)


@pytest.mark.parametrize("known", range(6))
async def test_a_stream_continues_behind_the_last_event_from_any_worker(shop, known):
    order_id = (await shop.order())["id"]
    await shop.deployment.send(FULFILMENTS, Fulfilled(order_id=order_id))
    async with following(shop, order_id, shop.first) as events:
        everything = await collected(events)
    assert len(everything) == 6
    async with following(shop, order_id, shop.last, after=everything[known].id) as events:
        assert await collected(events) == everything[known + 1 :]


async def test_an_order_that_is_unknown_is_a_problem_and_not_a_stream(shop):
    answer = await shop.deployment.ask(shop.last, "GET", "/v1/orders/nobody/events?timeout=50")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "application/problem+json")


async def test_head_of_a_stream_has_no_body_and_ends(shop):
    order_id = (await shop.order())["id"]
    for worker in (shop.first, shop.last):
        answer = await shop.deployment.ask(worker, "HEAD", f"/v1/orders/{order_id}/events")
        assert (answer.status, answer.body) == (200, b"")


async def test_a_client_that_goes_leaves_no_watch(shop):
    order_id = (await shop.order())["id"]
    before = shop.waiting()
    async with following(shop, order_id, shop.last) as events:
        await collected(events, 5)
        await until(lambda: shop.waiting() > before, "a watch")
    await until(lambda: shop.waiting() <= before, "no watch")

"""E-mails that a server puts off, by the thousand, from a worker on a real Kafka: seen, and delaying nobody else."""

import asyncio
import json
import logging
import re

import pytest

from ecosystem.clients.dead_letters.redrive import redrive
from runtime.side_effects.scheduler import AttemptScheduler
from schemas.messages import Customer, Order, OrderState
from schemas.topics import CUSTOMERS, ORDERS
from tests.smtp_script import HANG, Script
from tests.workers import Deployment, until

BAD = 1000
GOOD = 50
SOON_S = 20.0
"""In which fifty e-mails have to come, on a machine that does other things. They take about one second."""


def customer(number, domain):
    return Customer(id=number, first_name="F", last_name="K", email=f"c{number}@{domain}", address="", level="gold")


def order(number):
    content = {"product": "UNDERPANTS", "quantity": 3, "price": 5, "created_at": "2026-01-01T00:00:00Z"}
    return Order(id=f"o{number}", customer_id=number, state=OrderState.SHIPPED, **content)


async def send(deployment: Deployment, customers):
    await deployment.send(CUSTOMERS, *customers)
    await deployment.send(ORDERS, *(order(one.id) for one in customers))


def answers_for(how):
    """What the server says to a recipient whose domain begins with `dead`."""

    async def late(command):
        await asyncio.sleep(3)
        return "450 4.4.1 no answer"

    def recipient(command):
        if "@dead" not in command:
            return None
        return {"450": "450 4.1.2 <somebody@dead.example> unknown", "hangs": HANG}.get(how) or late(command)

    return {"RCPT": recipient}


async def metric(deployment: Deployment, worker, name):
    text = (await deployment.ask(worker, "GET", "/metrics")).body.decode()
    found = re.search(
        rf'^faust_orders_side_effects_{name}{{effect="letter",service="email"}} (\S+)$', text, re.MULTILINE
    )
    return None if found is None else float(found[1])


async def told(deployment: Deployment, worker):
    return json.loads((await deployment.ask(worker, "GET", "/readyz")).body)


@pytest.mark.parametrize(("how", "domains"), [("450", 1), ("450", 1000), ("slow", 1), ("hangs", 3)], ids=str)
async def test_a_thousand_deferred_side_effects_delay_no_other_and_are_reported(
    deployment: Deployment, caplog, how, domains
):
    caplog.set_level(logging.WARNING, "runtime")
    script = Script(answers_for(how))
    async with script.serving() as port:
        worker = await deployment.start("email", smtp_port=port, smtp_timeout_s=10)
        dead = [customer(n, f"dead{n % domains}.example") for n in range(BAD)]
        await send(deployment, dead)
        await until(lambda: len(worker._member.engine.side_effects) == BAD, "all of them wait", every=0.1)
        await until(
            lambda: script.attempts.total() >= (BAD if domains == BAD else AttemptScheduler.MAX_FAILURES), "attempts"
        )

        begun, before = asyncio.get_running_loop().time(), script.attempts.total()
        good = [customer(5000 + n, f"fine{n % 5}.example") for n in range(GOOD)]
        await send(deployment, good)
        await until(lambda: len(script.emails) == GOOD, "the good ones", every=0.01)
        took_s = asyncio.get_running_loop().time() - begun
        print(
            f"{how}, {domains} domains: {GOOD} good e-mails took {took_s:.2f} s, attempts at bad ones before {before}"
        )
        assert took_s < SOON_S
        assert sorted(script.recipients) == sorted(one.email for one in good)

        # It is seen, and names nobody.
        await until(lambda: len(worker._member.engine.side_effects) == BAD, "the good ones are noted")
        ready = await told(deployment, worker)
        assert ready["ready"]
        email = ready["side_effects"]["email"]
        assert email["waiting"] + email["running"] == BAD
        assert email["last_error"] == {"450": "RCPT 450 4.1.2", "slow": "RCPT 450 4.4.1", "hangs": "RCPT timeout"}[how]
        assert await metric(deployment, worker, "waiting") >= BAD - 16
        assert await metric(deployment, worker, "oldest_waiting_seconds") > 0
        assert await metric(deployment, worker, "failed_attempts_total") > 0
        failures = [r for r in caplog.records if r.getMessage().startswith("side effect failed")]
        assert 0 < len(failures) <= 5 * (1 + (asyncio.get_running_loop().time() - begun) // 60 + 1)
        assert not any("@" in r.getMessage() for r in failures)
        if domains == 1:
            assert script.attempts.total() - GOOD < 60

        if how == "450" and domains == 1:  # the domain is back: all of its own come
            script.answers = {}
            await until(lambda: len(script.emails) == BAD + GOOD, "all of them", every=0.1)
            await until(lambda: not len(worker._member.engine.side_effects), "all are noted")
            assert len(set(script.recipients)) == len(script.recipients)


async def test_an_email_past_its_deadline_is_dead_lettered_and_can_be_redriven(deployment: Deployment):
    script = Script({"RCPT": lambda command: "450 4.2.2 c1@dead.example: mailbox full" if "@dead" in command else None})
    async with script.serving() as port:
        worker = await deployment.start("email", smtp_port=port, side_effect_timeout_s=3)
        await send(deployment, [customer(n, "dead.example") for n in range(1, 31)] + [customer(99, "fine.example")])

        async def aside():
            records = await deployment.records("email-effects.dead-letters")
            return len(records) == 30 and records

        records = await until(aside, "all are dead letters", every=0.2)
        assert all(dict(r.headers)["error"].startswith(b"not done within 3 s: RCPT") for r in records)
        await until(lambda: not len(worker._member.engine.side_effects), "nothing is left")
        assert script.recipients == ["c99@fine.example"]

        script.answers = {}
        assert len((await redrive(deployment.settings(), "email-effects", lambda _: True)).written) == 30
        await until(lambda: len(script.emails) == 31, "the others, now that there is room")


async def test_an_unavailable_server_is_retried_slowly_and_then_gets_every_email(deployment: Deployment):
    script = Script({"banner": "421 4.3.2 not now"})
    async with script.serving() as port:
        worker = await deployment.start("email", smtp_port=port)
        await send(deployment, [customer(n, f"fine{n % 7}.example") for n in range(300)])
        await until(lambda: len(worker._member.engine.side_effects) == 300, "all wait")
        before = script.connections
        await until(lambda: script.connections > before + 3, "it is looked for")
        assert script.connections < 40
        assert (await told(deployment, worker))["side_effects"]["email"]["last_error"] == "connect 421 4.3.2"
        script.answers = {}
        await until(lambda: len(script.emails) == 300, "all of them")
        assert script.most_open <= 8

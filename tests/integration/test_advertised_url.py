"""Workers that the others of their group cannot reach, on a real Kafka: they are given nothing, say so, and recover."""

import logging

from ecosystem.embedded.ports import free_ports
from tests.workers import Deployment, until

ORDER = {"customerId": 1, "product": "JUMPERS", "quantity": 1, "price": 5}


def serves_all(worker):
    told = worker.readiness()
    return told["ready"] and told["partitions"] == [0, 1, 2, 3]


async def test_a_second_worker_with_the_same_url_is_not_ready_until_the_first_ends(deployment: Deployment, caplog):
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    first = await deployment.start(http_port=port, advertised_url=url)
    await deployment.stock(JUMPERS=100)
    second = await deployment.start(name="w1", advertised_url=url, ready=False)
    await until(lambda: second.readiness()["refused"], "refused")

    there = f"http://127.0.0.1:{second._http.runner.addresses[0][1]}"
    async with deployment.http.get(f"{there}/readyz") as answer:
        status, told = answer.status, await answer.json()
    assert (status, told["ready"], told["partitions"], told["standby"]) == (503, False, [], {})
    assert f"advertises {url}, too: set ADVERTISED_URL" in told["refused"]
    [said] = [r for r in caplog.records if r.levelno == logging.ERROR and "refused by its group" in r.getMessage()]
    assert "set ADVERTISED_URL" in said.getMessage()
    await until(lambda: serves_all(first), "the first one serves")
    for n in range(8):  # of all partitions; whoever asks the second one is answered by the first
        async with deployment.http.post(f"{there}/v1/orders", json={"id": f"o{n}", **ORDER}) as answer:
            assert answer.status == 201
        assert (await deployment.outcome(first, f"o{n}"))["state"] == "VALIDATED"

    await deployment.stop(first)
    await deployment.ready(second)
    assert second.readiness()["partitions"] == [0, 1, 2, 3]
    assert second.readiness()["refused"] == ""
    async with deployment.http.get(f"{there}/v1/orders/o1/validated") as answer:
        assert (answer.status, (await answer.json())["state"]) == (200, "VALIDATED")


async def test_a_loopback_url_is_refused_in_a_group_of_several_hosts(deployment: Deployment, monkeypatch):
    first = await deployment.start(http_host="0.0.0.0")
    monkeypatch.setattr("runtime.worker.worker.network_identity", lambda: "another host")
    second = await deployment.start(name="w1", http_host="0.0.0.0", ready=False)
    await until(lambda: second.readiness()["refused"], "refused")
    assert "other hosts cannot reach http://0.0.0.0:" in second.readiness()["refused"]
    await until(lambda: serves_all(first), "the first one serves")

    await deployment.stop(second)
    third = await deployment.start(name="w1", advertised_url="http://10.0.0.1:80", ready=False)
    await until(
        lambda: third.readiness()["ready"] and first.readiness()["refused"], "the one that can be reached serves"
    )
    assert third.readiness()["partitions"] == [0, 1, 2, 3]

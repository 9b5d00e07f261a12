"""A changelog need not end in a record: what was aborted, and the markers behind it, are passed over by a recovery."""

from aiokafka import AIOKafkaProducer

from orders_service.state import ORDERS_VIEW
from schemas.messages import Order
from schemas.topics import ORDERS
from tests.workers import Deployment, until


async def test_a_restore_completes_when_changelogs_end_in_aborted_records_and_markers(deployment: Deployment):
    worker = await deployment.start(name="one")
    await deployment.stock(JUMPERS=100)
    ids = [f"o{n}" for n in range(20)]
    await deployment.send(ORDERS, *[Order(id=i, customer_id=1, product="JUMPERS", quantity=1, price=1) for i in ids])
    for id_ in ids:
        await deployment.outcome(worker, id_)
    await deployment.stop(worker)
    stranger = AIOKafkaProducer(bootstrap_servers=deployment.servers, transactional_id=f"{deployment.prefix}stranger")
    await stranger.start()
    try:
        for ends in (stranger.abort_transaction, stranger.commit_transaction, stranger.abort_transaction):
            await stranger.begin_transaction()
            for table in worker.topology.tables.values():
                for partition in range(4):
                    topic = deployment.prefix + table.changelog
                    if ends == stranger.abort_transaction:
                        await stranger.send_and_wait(topic, b"{}", key=b"never-was", partition=partition)
                    elif table is not ORDERS_VIEW:
                        await stranger.send_and_wait(topic, None, key=b"never-was", partition=partition)
            await ends()
    finally:
        await stranger.stop()

    restored: list[int] = []
    worker = await deployment.start(name="another-disk", restored=restored.append)

    assert sum(restored) > len(ids)
    await until(lambda: worker.readiness()["ready"], "ready")
    for id_ in ids:
        assert (await deployment.get(worker, id_, timeout=0))[1]["state"] == "VALIDATED"
    assert (await deployment.get(worker, "never-was", timeout=0))[0] == 404

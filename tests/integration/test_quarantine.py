"""A message that fails after each redrive is quarantined; a dry run shows what a redrive would do."""

import json

from ecosystem.clients.dead_letters.records import REDRIVE_NOTES
from ecosystem.clients.reader import partitions_of
from tests.commands import orders
from tests.workers import Deployment, until


async def test_a_message_that_fails_after_three_redrives_is_quarantined(deployment: Deployment):
    worker = await deployment.start()
    await deployment.send_raw("orders", b"poison", b"{")
    await deployment.send_raw("orders", b"broken", b"[]")

    async def letters(count):
        found = await deployment.records("orders.dead-letters")
        poison = [r for r in found if r.key == b"poison"]
        return poison if (len(poison), len(found)) == (count, count + 1) else None

    async def run(*arguments):
        code, said = await orders(deployment, "dead-letters", *arguments, COLUMNS="300")
        return code, said

    await until(lambda: letters(1), "the dead letters", every=0.2)
    code, said = await run("redrive", "orders", "--key", "pois", "--dry-run")
    assert code == 0, said
    assert "redriven: 1\n1 would be written back, 0 were before. Nothing was written" in said
    assert await partitions_of(deployment.settings(), [REDRIVE_NOTES]) == []
    assert len(await deployment.records("orders")) == 2

    for times in (1, 2, 3):
        code, said = await run("redrive", "orders", "--key", "pois", "--cause", "JSON", "--not-redriven")
        assert code == 0, said
        assert "1 written back, 0 were before" in said
        last = max(await until(lambda n=times: letters(n + 1), "it failed again", every=0.2), key=lambda r: r.offset)
        assert (last.key, last.value, last.headers[0]) == (b"poison", b"{", ("redriven", str(times).encode()))
        assert [name for name, _ in last.headers].count("redriven") == 1
    place = f"{last.partition}@{last.offset}"

    for arguments in (("--key", "poison"), ("--key", "poison", "--dry-run"), (place,)):
        code, said = await run("redrive", "orders", *arguments)
        assert code == 1
        assert f"orders.dead-letters {place} is quarantined: redriven 3 times, failed each time" in said
        assert "0 w" in said
    assert len(await deployment.records("orders")) == 5

    code, said = await run("list", "--quarantined", "--json")
    assert code == 0, said
    [row] = map(json.loads, said.splitlines())
    assert (row["partition"], row["offset"], row["redriven"]) == (last.partition, last.offset, 3)
    assert row["quarantined"]
    code, said = await run("list", "--quarantined", "--max-redrives", "4")
    assert said == "No such dead letters.\n"
    code, said = await run("list", "orders", "--not-redriven")
    assert "orders: 2 dead letters" in said
    assert "quarantined: redriven 3 times, failed each time" in said
    code, said = await run("summary", "--json")
    assert code == 0, said
    groups = [json.loads(line) for line in said.splitlines()]
    assert sum(group["count"] for group in groups) == 5
    [poisoned] = [group for group in groups if group["quarantined"]]
    assert (poisoned["count"], poisoned["redriven"], poisoned["quarantined"]) == (4, 3, 1)
    assert poisoned["example"] == {"partition": last.partition, "offset": last.offset}
    code, said = await run("summary")
    assert "orders: 5 dead letters" in said

    code, said = await run("redrive", "orders", place, "--quarantined-too")
    assert code == 0, said
    last = max(await until(lambda: letters(5), "it failed once more", every=0.2), key=lambda r: r.offset)
    assert last.headers[0] == ("redriven", b"4")
    await deployment.stop(worker)

"""Every service, the databases and the mail server are killed under load: nothing is lost or duplicated."""

import random

import pytest

from tests.chaos.services import LAYOUTS, campaign

TRIED = {layout.name: layout for layout in LAYOUTS if layout.name in {"services-composed", "products-apart"}}


@pytest.mark.parametrize("layout", TRIED)
async def test_killed_services_databases_and_mail_lose_and_duplicate_nothing(kafka, tmp_path, record_property, layout):
    seed = random.randrange(10**6)
    record_property("seed", seed)
    print("seed", seed)
    report = await campaign(kafka, tmp_path, TRIED[layout], random.Random(seed), enough=lambda rounds: rounds >= 1)
    print("\n".join(report.lines()))
    assert not report.violations
    assert report.acknowledged > 50
    assert report.changes > 10
    assert report.faults == {"kill": len(TRIED[layout].compositions), "databases": 1, "mail": 1}

"""Every service, the databases and the mail server killed under load: nothing is lost, nothing doubled."""

import random

from tests.chaos.services import LAYOUTS, campaign


async def test_services_databases_and_mail_are_killed_and_nothing_is_lost_or_doubled(kafka, tmp_path, record_property):
    seed = random.randrange(10**6)
    record_property("seed", seed)
    print("seed", seed)
    report = await campaign(kafka, tmp_path, LAYOUTS[0], random.Random(seed), enough=lambda rounds: rounds >= 1)
    print("\n".join(report.lines()))
    assert not report.violations
    assert report.acknowledged > 50
    assert report.faults == {"kill": 2, "databases": 1, "mail": 1}

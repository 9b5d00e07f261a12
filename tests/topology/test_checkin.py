"""Check-ins and rejections in their consumers: check-in service, fulfilment and portal."""

import pytest

import checkin_service.app
import fulfilment_service.app
import portal_service.app
from portal_service.processors import CHECK_INS_VIEW, MAX_SHOWN
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import CheckinRejected
from schemas.topics import CHECKIN_REJECTIONS, HOME_CHECKINS
from tests.samples import checked_in
from tests.topology.conftest import CORE_APPS, Shop


def rejected(event_id="c1", order_no="o1") -> CheckinRejected:
    return CheckinRejected(event_id=event_id, order_no=order_no, reason="no")


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def topology(request):
    apps = (checkin_service.app, portal_service.app)
    return TopologyTestDriver(*(app.build(Settings()).service for app in apps), apart=request.param)


def shown(topology, order_no="o1"):
    row = topology.row(CHECK_INS_VIEW, order_no)
    return [(c.event_id, str(c.status), c.reason, c.staff_code) for c in row.check_ins]


def test_a_rejection_enqueues_one_database_update_however_often_it_arrives(topology):
    topology.send(CHECKIN_REJECTIONS, rejected(), rejected(), rejected("c2"))
    service = checkin_service.app.build(Settings()).service
    [effect] = [e for w in topology.workers for s in w.topology.services for e in s.side_effects]
    assert effect.name == service.side_effects[0].name
    assert topology.pending(effect) == {"c1": rejected(), "c2": rejected("c2")}


@pytest.mark.parametrize("events", [("in", "out"), ("out", "in"), ("in", "out", "in"), ("in", "in", "out", "out")])
def test_the_portal_shows_a_rejected_check_in_in_any_order_of_arrival(topology, events):
    for event in events:
        if event == "in":
            topology.send(HOME_CHECKINS, checked_in())
        else:
            topology.send(CHECKIN_REJECTIONS, rejected())
    assert shown(topology) == [("c1", "REJECTED", "no", "cs_eng_ftth")]


def test_the_portal_shows_the_last_check_ins_of_each_order(topology):
    topology.send(HOME_CHECKINS, checked_in("other", "o2"))
    for n in range(MAX_SHOWN + 5):
        topology.send(HOME_CHECKINS, checked_in(f"c{n}"))
    assert [id_ for id_, *_ in shown(topology)] == [f"c{n}" for n in range(5, MAX_SHOWN + 5)]
    assert topology.row(CHECK_INS_VIEW, "o1").earlier == 5
    assert shown(topology, "o2") == [("other", "CREATED", None, "cs_eng_ftth")]


def test_a_check_in_repeated_by_the_outbox_is_rejected_once():
    apps = [*CORE_APPS.values(), fulfilment_service.app]
    services = [app.build(Settings()).service for app in apps]
    shop = Shop(TopologyTestDriver(*services))
    shop.post(shop.order("o1", product="NONE"))
    shop.topology.send(HOME_CHECKINS, checked_in(), checked_in(), checked_in("c2"))

    answered = [r.event_id for r in shop.topology.values(CHECKIN_REJECTIONS)]
    assert answered == ["c1", "c2"]

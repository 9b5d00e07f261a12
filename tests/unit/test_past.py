"""Lists of orders, and the records of one, as the commands print them."""

from datetime import UTC, datetime
from types import SimpleNamespace

from ecosystem.cli.commands import past

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ID = "01a226fb-d86d-7e1c-bbba-8dff45480e7b"
REASON = "FRAUD_CHECK: the customer's orders of this session come to 2100.00, the limit is 2000.00"


def test_a_list_in_a_pipe_has_a_line_per_order_with_its_whole_id_and_reason(capsys):
    content = {"customer_id": 15, "quantity": 1, "product": "mug", "value": 12, "reasons": (REASON,)}
    order = SimpleNamespace(id=ID, created_at=NOON, state="FAILED", **content)
    past._show_orders(SimpleNamespace(orders=(order, order)))
    _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(ID in line and REASON in line for line in lines)


def test_a_history_in_a_pipe_has_a_line_per_record(capsys):
    topic = "a-long-prefix-of-some-deployment.order-validations.dead-letters"
    record = SimpleNamespace(
        stage="DEAD_LETTER",
        produced_at=NOON,
        seconds_since_previous=1.5,
        topic=topic,
        partition=3,
        offset=123_456_789,
        repeated=True,
    )
    past._show_records(SimpleNamespace(records=(record,)))
    _, line = capsys.readouterr().out.splitlines()
    assert line.split() == [
        "DEAD_LETTER",
        "2026-01-31T12:00:00.000Z",
        "+1.500",
        "s",
        topic,
        "3",
        "123456789",
        "repeated",
    ]

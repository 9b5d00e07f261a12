"""Fail points have names, reject unknown ones, and trigger at the n-th passing."""

import re
import signal
from pathlib import Path

import pytest
from pydantic import ValidationError

from runtime.common import failpoints
from runtime.common.failpoints import POINTS, Trigger, parse
from runtime.common.settings import Settings


@pytest.fixture
def hits(monkeypatch):
    """What happened instead of crashes and silence."""
    found = []
    monkeypatch.setattr(failpoints.os, "kill", lambda _pid, number: found.append(number))  # type: ignore[attr-defined]
    monkeypatch.setattr(failpoints.time, "sleep", found.append)  # type: ignore[attr-defined]
    yield found
    failpoints.arm(())


def test_triggers_are_parsed_from_text():
    assert parse("commit.sent=crash@3, rebalance.restored=pause(9.5)") == (
        Trigger("commit.sent", None, 3),
        Trigger("rebalance.restored", 9.5, 1),
    )
    assert parse("") == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("commit.send=crash", "unknown fail point 'commit.send'; there are batch.processed, "),
        ("commit.sent=explode", "'commit.sent=explode' is no fail point"),
        ("commit.sent=crash@0", "and @n for the n-th time"),
        ("commit.sent=pause()", "write point=crash or point=pause"),
    ],
)
def test_an_invalid_trigger_prevents_the_start_of_a_worker(monkeypatch, text, complaint):
    monkeypatch.setenv("FAIL_POINTS", text)
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        Settings()


def test_a_point_hits_at_its_nth_passing_and_once(hits):
    failpoints.arm(parse("commit.sent=crash@2,commit.sent=pause(3)@3,apply.done=pause(4)"))
    for expected in ([], [signal.SIGKILL], [signal.SIGKILL, 3.0], [signal.SIGKILL, 3.0]):
        failpoints.reach("commit.sent")
        assert hits == expected
    failpoints.reach("commit.begun")
    failpoints.reach("apply.done")
    assert hits == [signal.SIGKILL, 3.0, 4.0]


def test_every_point_is_reached_somewhere_and_no_other():
    root = Path(__file__).parents[2]
    called = {
        point
        for folder in ("runtime", "ecosystem/imports")
        for path in sorted((root / folder).rglob("*.py"))
        for point in re.findall(r'failpoints\.reach\("([^"]+)"\)', path.read_text())
    }
    assert called == set(POINTS)

"""The resume file of a replay: whatever a crash leaves of it, and whose file it is."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecosystem.clients.pace import Pace
from ecosystem.replay.records import Place
from ecosystem.replay.resume import Doubtful, ResumeError, ResumeFile
from ecosystem.replay.selection import Selection
from history_service.filters import Filters

REPLAY = Selection(filters=Filters(product="mug")).described()


def place(number):
    return Place("orders", 1, number)


def batch(*numbers, begin=100):
    return Doubtful({place(n): 1 for n in numbers}, {("orders", 1): begin})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "resume.jsonl"


def written(path):
    """A file with a batch that was sent, one of which a record was refused, and one in doubt. Returns its lines."""
    with ResumeFile(path, REPLAY) as file:
        assert (file.resumed, file.sent) == (False, set())
        file.begin(batch(1, 2))
        file.end([place(1), place(2)])
        file.begin(batch(3, 4))
        file.end([place(4)])
        file.begin(batch(5, 6, begin=104))
    return path.read_bytes().splitlines(keepends=True)


def test_what_was_sent_is_known_again(path):
    written(path)
    with ResumeFile(path, REPLAY) as file:
        assert file.resumed
        assert file.sent == {place(1), place(2), place(4)}
        assert file.doubtful == batch(5, 6, begin=104)
        file.end([place(5)])
    with ResumeFile(path, REPLAY) as file:
        assert (file.sent, file.doubtful) == ({place(n) for n in (1, 2, 4, 5)}, Doubtful())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_torn_anywhere_behind_its_first_line_is_read(path, data):
    path.unlink(missing_ok=True)
    lines = written(path)
    whole = b"".join(lines)
    cut = data.draw(st.integers(len(lines[0]), len(whole)))
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n") - 1

    with ResumeFile(path, REPLAY) as file:
        expected = [set(), set(), {1, 2}, {1, 2}, {1, 2, 4}, {1, 2, 4}][complete]
        assert file.sent == {place(n) for n in expected}
        assert bool(file.doubtful.replays) == (complete % 2 == 1)
        file.begin(batch(9))
        file.end([place(9)])
    with ResumeFile(path, REPLAY) as file:
        assert place(9) in file.sent


def test_a_file_of_another_replay_is_refused(path):
    written(path)
    for other in (Selection(filters=Filters(product="pot")), Selection(filters=Filters(product="mug"), in_order=True)):
        with pytest.raises(ResumeError, match="belongs to another replay: repeat its options"):
            ResumeFile(path, other.described()).__enter__()


@pytest.mark.parametrize("content", [b"", b"\n", b"no json\n", b"[]\n", b"{}\n", b'{"replay": 1}\n', b'{"replay'])
def test_a_file_that_is_no_resume_file_is_refused_and_kept(path, content):
    path.write_bytes(content)
    with pytest.raises(ResumeError, match="no resume file"):
        ResumeFile(path, REPLAY).__enter__()
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"odd", b"[]", b"{}", b'{"sent": ["orders"]}', b'{"begin": {"orders/1/2": 1}}'])
def test_a_damaged_line_is_named(path, line):
    lines = written(path)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    with pytest.raises(ResumeError, match="damaged in line 3"):
        ResumeFile(path, REPLAY).__enter__()


def test_one_replay_at_a_time_has_the_file(path):
    with ResumeFile(path, REPLAY), pytest.raises(ResumeError, match="in use by another replay"):
        ResumeFile(path, REPLAY).__enter__()
    with pytest.raises(ResumeError, match="name a file in a folder"):
        ResumeFile(path / "below", REPLAY).__enter__()


def test_only_what_differs_makes_another_replay():
    assert "replays-too" not in REPLAY
    ids = [Selection(ids=("a", "b")).described(), Selection(ids=("ab",)).described()]
    assert ids[0] != ids[1]


class Clock:
    def __init__(self):
        self.now, self.slept = 0.0, []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 3), max_size=20))
async def test_no_rate_is_exceeded(rate, busy):
    clock = Clock()
    pace = Pace(rate, lambda: clock.now, clock.sleep)
    sent = 0
    for seconds in busy:
        await pace.wait(pace.batch)
        assert sent <= rate * clock.now * 1.001 + 1e-6 or sent == 0
        sent += pace.batch
        clock.now += seconds
    assert 1 <= pace.batch <= max(1, rate / 2)


async def test_without_a_rate_nothing_waits():
    clock = Clock()
    pace = Pace(None, lambda: clock.now, clock.sleep)
    await pace.wait(10**6)
    assert clock.slept == []
    assert pace.batch == 500

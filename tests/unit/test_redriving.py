"""`orders dead-letters redrive` asks before it writes many, shows what it would do, and says what it left."""

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ecosystem.cli.commands import dead_letters
from ecosystem.cli.main import main
from ecosystem.clients.dead_letters import redrive as redriving
from ecosystem.clients.dead_letters.dead_letter import DeadLetterId
from ecosystem.clients.dead_letters.outcome import RedriveOutcome, Target
from ecosystem.clients.dead_letters.records import RedriveNote
from tests.unit.test_dead_letters import NOON, letter

FOUND = [letter(n, offset=n, key=f"k{n}".encode()) for n in range(4)]


@pytest.fixture
def redrive(monkeypatch):
    """Runs the command on `FOUND`. The first of them, of those that are wanted, are written."""
    calls = []

    async def preview(settings, topic, wanted, rules):
        outcome = RedriveOutcome()
        outcome.targets |= {one.id: Target(1, 1) for one in FOUND if wanted(one)}
        calls.append(("preview", rules))
        return outcome

    async def write(settings, topic, wanted, rules, *, pace, stop, progress, outcome):
        outcome.targets |= {one.id: Target(1, 1) for one in [*FOUND, letter(9, offset=9)] if wanted(one)}
        notes = {id_: RedriveNote(partition=1, offset=7, at=NOON) for id_ in outcome.targets}
        outcome.written |= notes
        calls.append(("write", rules))

    def run(*arguments, terminal=False, answer=""):
        calls.clear()
        monkeypatch.setattr(dead_letters, "_is_terminal", lambda: terminal)
        result = CliRunner().invoke(main, ["dead-letters", "redrive", "orders", *arguments], input=answer)
        return result.exit_code, result.output, [name for name, _ in calls]

    monkeypatch.setattr(redriving, "preview", preview)
    monkeypatch.setattr(redriving, "redrive", write)
    return SimpleNamespace(run=run, calls=calls)


ASKS = {
    "all on a terminal": (["--all"], True, True),
    "filtered on a terminal": (["--service", "orders"], True, True),
    "one that is filtered": (["--key", "k2"], True, False),
    "named": (["1@0", "1@1"], True, False),
    "with --yes": (["--all", "--yes"], True, False),
    "no terminal": (["--all"], False, False),
}


@pytest.mark.parametrize("name", ASKS)
def test_the_command_asks_before_it_writes_more_than_one_that_is_not_named(redrive, name):
    arguments, terminal, asks = ASKS[name]

    code, said, calls = redrive.run(*arguments, terminal=terminal, answer="n\n")

    assert ("Write 4 dead letters back to orders?" in said) is asks
    assert ("write" not in calls) is asks
    assert code == (1 if asks else 0)


def test_what_was_agreed_to_is_written_and_nothing_that_came_meanwhile(redrive):
    code, said, calls = redrive.run("--all", terminal=True, answer="y\n")
    assert (code, calls) == (0, ["preview", "write"])
    assert "4 written back, 0 were before" in said
    assert "5 written back" in redrive.run("--all", "--yes", terminal=True)[1]


def test_a_dry_run_writes_nothing(redrive):
    code, said, calls = redrive.run("--all", "--dry-run", terminal=True)
    assert (code, calls) == (0, ["preview"])
    assert "orders.dead-letters 1@2 would be written back to orders partition 1, redriven: 1" in said
    assert "4 would be written back, 0 were before. Nothing was written" in said


@pytest.mark.parametrize(
    ("arguments", "most"), [([], 3), (["--max-redrives", "5"], 5), (["--quarantined-too"], None)], ids=str
)
def test_a_quarantine_has_a_limit_or_is_lifted(redrive, arguments, most):
    redrive.run("--all", *arguments)
    [(_, rules)] = redrive.calls
    assert rules.max_redrives == most


@pytest.mark.parametrize("kind", ["rejected", "quarantined"])
def test_what_is_refused_is_said_and_ends_in_code_1(redrive, monkeypatch, kind):
    async def refuse(*_, outcome, **__):
        getattr(outcome, kind)[DeadLetterId("orders", 1, 2)] = "too bad"

    monkeypatch.setattr(redriving, "redrive", refuse)
    code, said, _ = redrive.run("--all")
    assert code == 1
    assert "orders.dead-letters 1@2 " in said
    assert "too bad" in said


def test_a_position_that_is_not_there_or_filtered_out_is_said(redrive):
    code, said, _ = redrive.run("1@2", "1@77")
    assert code == 1
    assert "no such dead letter: 1@77\n" in said
    code, said, _ = redrive.run("1@2", "1@3", "--key", "k2")
    assert code == 1
    assert "no such dead letter: 1@3, or the filters leave it out" in said


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--cause", ""], "Invalid value for '--cause': it is empty, and would fit everything"),
        (["--key", " "], "Invalid value for '--key': it is empty"),
        (["--from", "1h", "--to", "2h"], "Invalid value for --from: it must be before --to"),
        (["--from", "yesterday"], "or a time ago such as 90m, 12h or 7d"),
        (["--all", "--rate", "0"], "0.0 is not in the range"),
        (["--all", "--max-redrives", "0"], "0 is not in the range"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(redrive, arguments, reason):
    code, said, calls = redrive.run(*arguments)
    assert (code, calls) == (2, [])
    assert reason in said

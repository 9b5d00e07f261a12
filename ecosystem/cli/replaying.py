"""The steps of `orders replay`: plan, show, send."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from ecosystem.cli.commands.shared import perform
from ecosystem.cli.progress import progress
from ecosystem.cli.stopping import GRACE_S, StopRequest, run_until_signal
from ecosystem.clients.pace import Pace
from ecosystem.replay import asking, report, run
from ecosystem.replay.plan import Plan
from ecosystem.replay.resume import ResumeError, ResumeFile
from ecosystem.replay.selection import Selection
from ecosystem.replay.sending import Sent
from history_service.stages import Stage
from runtime.common.settings import Settings


class Replaying:
    """A run of the command.

    Arguments:
        settings: brokers and prefix of the target.
        wanted: what is replayed.
        history: database of the history.
        url: orders service of the target; `None`: it is not known.
        bootstrap: brokers, if the user named them.
    """

    def __init__(
        self, settings: Settings, wanted: Selection, history: str, url: str | None, bootstrap: str | None
    ) -> None:
        self._settings = settings
        self._wanted = wanted
        self._history = history
        self._url = url
        self._bootstrap = bootstrap
        self._console = Console(highlight=False)

    def resume(self, file: Path | None, stack: ExitStack) -> ResumeFile | None:
        """Opens the resume file."""
        if file is None:
            return None
        target = {"to": f"{self._settings.kafka_bootstrap_servers} {self._settings.topic_prefix}".strip()}
        try:
            return stack.enter_context(ResumeFile(file, {**self._wanted.described(), **target}))
        except ResumeError as error:
            raise click.ClickException(str(error)) from error

    def prepare(self, folder: Path, stack: ExitStack, resume: ResumeFile | None) -> run.Prepared:
        """Reads the history, and plans."""
        plan: Plan = stack.enter_context(Plan(folder, self._wanted.max_replays))
        with progress() as report:
            return perform(
                run.prepare(self._wanted, self._settings, self._history, plan, resume, folder, report),
                bootstrap=self._bootstrap,
                expected=run.EXPECTED,
            )

    def show(self, prepared: run.Prepared, limit: int) -> None:
        """Prints the plan."""
        orders = [] if self._wanted.redecide else prepared.plan.orders(Stage.CREATED)
        states = perform(asking.states(self._url, orders)) if self._url is not None and orders else None
        report.print_plan(self._console, prepared, self._wanted, states, limit)

    def send(
        self, prepared: run.Prepared, resume: ResumeFile | None, rate: float | None, resume_file: Path | None
    ) -> NoReturn:
        """Sends the plan, and exits."""
        sent, complete = Sent(), False

        async def drive(stop: StopRequest) -> None:
            nonlocal complete
            stop.grace_s = GRACE_S  # for the batch that is being sent
            pace = Pace(rate)
            complete = await run.send(prepared, self._wanted, pace, resume, stop.received, tell, sent)

        total = prepared.plan.total
        try:
            with progress() as tell:
                perform(run_until_signal(drive), bootstrap=self._bootstrap, expected=run.EXPECTED)
        finally:
            report.print_sent(self._console, sent, total)
            if not complete:
                click.echo(_how_to_go_on(resume_file), err=True)
        sys.exit(0 if complete and not report.incomplete(prepared, sent) else 1)


def _how_to_go_on(resume_file: Path | None) -> str:
    if resume_file is not None:
        return f"Interrupted. The same command with --resume {resume_file} sends the rest, and nothing twice."
    return (
        "Interrupted. The same command sends all of it again; with --resume FILE a replay can go on where it stopped."
    )

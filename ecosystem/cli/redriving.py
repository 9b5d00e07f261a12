"""The steps of `orders dead-letters redrive`: preview, ask, write."""

import sys
from dataclasses import replace
from typing import NoReturn

import click

from ecosystem.cli.commands.shared import perform
from ecosystem.cli.dead_letter_text import when
from ecosystem.cli.progress import progress
from ecosystem.cli.stopping import GRACE_S, StopRequest, run_until_signal
from ecosystem.clients.dead_letters import redrive as redriving
from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.dead_letters.filters import Filters
from ecosystem.clients.dead_letters.outcome import RedriveOutcome, Rules
from ecosystem.clients.pace import Pace
from runtime.common.settings import Settings


class Redriving:
    """A run of the command.

    Arguments:
        settings: broker and topic prefix.
        topic: of the original messages.
        positions: dead letters that the user named; empty: all that fit.
        filters: select among them.
        rules: what may be written.
        bootstrap: brokers, if the user named them.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        positions: tuple[tuple[int, int], ...],
        filters: Filters,
        rules: Rules,
        bootstrap: str | None,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._positions = positions
        self._filters = filters
        self._rules = replace(rules, redriven=filters.redriven)
        self._bootstrap = bootstrap

    def preview(self) -> RedriveOutcome:
        """Returns what would be written."""
        action = redriving.preview(self._settings, self._topic, self._wanted, self._rules)
        return perform(action, bootstrap=self._bootstrap)

    def show(self, preview: RedriveOutcome) -> NoReturn:
        """Prints what would be written, and exits."""
        for id_, target in preview.targets.items():
            click.echo(
                f"{id_} would be written back to {id_.topic} partition {target.partition}, redriven: {target.count}"
            )
        for id_, original in preview.duplicates.items():
            click.echo(f"{id_} is of the same record as {original}")
        self._print_left(preview)
        click.echo(f"{len(preview.targets)} would be written back{_counts(preview)}. Nothing was written")
        sys.exit(0 if self._complete(preview) else 1)

    def write(self, preview: RedriveOutcome | None, rate: float | None) -> NoReturn:
        """Redrives, and exits. With a preview, only those that it has."""
        outcome, stopped = RedriveOutcome(), False

        def wanted(letter: DeadLetter) -> bool:
            return self._wanted(letter) and (preview is None or letter.id in found)

        async def drive(stop: StopRequest) -> None:
            nonlocal stopped
            stop.grace_s = GRACE_S  # for the transaction that is open
            try:
                await redriving.redrive(
                    self._settings,
                    self._topic,
                    wanted,
                    self._rules,
                    pace=Pace(rate),
                    stop=stop.received,
                    progress=tell,
                    outcome=outcome,
                )
            finally:
                stopped = stop.received.is_set()

        found = set() if preview is None else preview.found
        with progress() as tell:
            perform(run_until_signal(drive), bootstrap=self._bootstrap, expected=(redriving.Superseded,))
        for id_, note in outcome.written.items():
            click.echo(f"{id_} written back to {id_.topic} {note.partition}@{note.offset}")
        if stopped:
            click.echo(
                f"Interrupted: {len(outcome.written)} of {len(outcome.targets)} written back. The same command writes "
                "the rest, and none twice.",
                err=True,
            )
            sys.exit(1)
        self._print_left(outcome)
        click.echo(f"{len(outcome.written)} written back{_counts(outcome)}")
        sys.exit(0 if self._complete(outcome) else 1)

    def _wanted(self, letter: DeadLetter) -> bool:
        return (not self._positions or letter.id[1:] in self._positions) and self._filters.fits(letter)

    def _print_left(self, outcome: RedriveOutcome) -> None:
        """Prints what is not written, and why."""
        for id_, note in outcome.written_before.items():
            click.echo(f"{id_} was written back before, {when(note)}")
        for id_, reason in outcome.rejected.items():
            click.echo(f"{id_} cannot be written back: {reason}", err=True)
        for id_, reason in outcome.quarantined.items():
            click.echo(f"{id_} is {reason} (--quarantined-too writes it back)", err=True)
        for id_, reason in outcome.replaced.items():
            click.echo(f"{id_} is left alone: {reason}", err=bool(self._positions))
        for partition, offset in self._absent(outcome):
            click.echo(f"no such dead letter: {partition}@{offset}{self._or_filtered()}", err=True)

    def _or_filtered(self) -> str:
        return "" if self._filters == Filters() else ", or the filters leave it out"

    def _absent(self, outcome: RedriveOutcome) -> list[tuple[int, int]]:
        found = {id_[1:] for id_ in outcome.found}
        return [position for position in self._positions if position not in found]

    def _complete(self, outcome: RedriveOutcome) -> bool:
        """Whether all named dead letters are, or would be, written back."""
        left = outcome.rejected or outcome.quarantined or self._absent(outcome)
        return not left and not (self._positions and outcome.replaced)


def _counts(outcome: RedriveOutcome) -> str:
    before = f", {len(outcome.written_before)} were before"
    left_alone = f", {len(outcome.replaced)} left alone" if outcome.replaced else ""
    quarantined = f", {len(outcome.quarantined)} quarantined" if outcome.quarantined else ""
    return before + left_alone + quarantined

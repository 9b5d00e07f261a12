"""Selects dead letters by service, cause, key, time, and whether they were redriven."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.readable import bytes_text

if TYPE_CHECKING:
    from ecosystem.clients.dead_letters.redrives import Redrives


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters, of which all must fit. `None`: anything fits.

    Arguments:
        service: that failed.
        cause: part of the error, in capitals or not.
        key: part of the key, as it is shown.
        since: first time of dead letters.
        before: end of their times, exclusive.
        redriven: whether they were written back.
    """

    service: str | None = None
    cause: str | None = None
    key: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    redriven: bool | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Returns whether all filters fit except for `redriven`, which the notes tell."""
        return (
            (self.service is None or self.service in letter.service.split(","))
            and (self.cause is None or self.cause.casefold() in letter.error.casefold())
            and (self.key is None or (letter.key is not None and self.key in bytes_text(letter.key)))
            and (self.since is None or letter.time_ms >= _ms(self.since))
            and (self.before is None or letter.time_ms < _ms(self.before))
        )

    def fits_redrives(self, letter: DeadLetter, redrives: "Redrives") -> bool:
        """Returns whether all filters fit."""
        return self.fits(letter) and (self.redriven is None or self.redriven == (redrives.note(letter) is not None))


def _ms(at: datetime) -> float:
    return at.timestamp() * 1000

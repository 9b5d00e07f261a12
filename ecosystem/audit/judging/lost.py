"""Records that were gone before they were read: what the workers themselves say of them, in dead letters."""

from datetime import datetime

from ecosystem.audit.report import Kind, Report, Violation
from ecosystem.clients.dead_letters import read
from ecosystem.clients.dead_letters.letter import DeadLetter
from runtime.common.settings import Settings


async def look(settings: Settings, since: datetime | None, report: Report) -> None:
    """Adds a violation for each range that is gone.

    Arguments:
        settings: broker and prefix.
        since: losses that were noticed before are left out.
        report: what is found is added to it.
    """
    since_ms = 0 if since is None else int(since.timestamp() * 1000)
    seen: set[tuple[str, int, int, int]] = set()
    async for letter in read.letters(settings, [*read.topics(settings), *read.changelogs(settings)]):
        if not isinstance(letter, DeadLetter) or letter.lost_until is None or letter.time_ms < since_ms:
            continue
        gone = letter.where.topic, letter.from_partition, letter.from_offset, letter.lost_until
        if gone in seen:  # each worker that rebuilt its state without these rows has said so
            continue
        seen.add(gone)
        report.lost.add(letter.from_partition)
        count = letter.lost_until - letter.from_offset or "an unknown number of"
        says = f"{letter.error}: {count} offsets; noticed by {letter.service} at {letter.failed_at} ({letter.where})"
        report.add(Violation(Kind.RECORDS_LOST, f"{letter.where.topic}[{letter.from_partition}]", says))

"""Lost records: removed by the broker before they were read. Workers report them as dead letters."""

from datetime import datetime

from ecosystem import services
from ecosystem.audit.report import Report, Violation, ViolationKind
from ecosystem.clients.dead_letters.dead_letter import DeadLetter
from ecosystem.clients.dead_letters.records import read_dead_letters
from runtime.common.settings import Settings


async def judge(settings: Settings, since: datetime | None, report: Report) -> None:
    """Adds a violation for each lost range.

    Arguments:
        settings: broker and prefix.
        since: ranges that were reported before are left out.
        report: gets the violations.
    """
    since_ms = 0 if since is None else int(since.timestamp() * 1000)
    seen: set[tuple[str, int, int, int]] = set()
    topics = [*services.consumed_topics(settings), *services.changelogs(settings)]
    async for letter in read_dead_letters(settings, topics):
        if not isinstance(letter, DeadLetter) or letter.lost_until is None or letter.time_ms < since_ms:
            continue
        lost = letter.id.topic, letter.from_partition, letter.from_offset, letter.lost_until
        if lost in seen:  # each worker that restored its state without these rows has reported them
            continue
        seen.add(lost)
        report.lost.add(letter.from_partition)
        count = letter.lost_until - letter.from_offset or "an unknown number of"
        text = f"{letter.error}: {count} offsets; reported by {letter.service} at {letter.failed_at} ({letter.id})"
        report.add(Violation(ViolationKind.RECORDS_LOST, f"{letter.id.topic}[{letter.from_partition}]", text))

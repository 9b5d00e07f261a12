"""Formats a report as text and as JSON."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from ecosystem.audit.facts import Fact
from ecosystem.audit.report import MisplacedRecord, Report, Violation
from ecosystem.audit.sources import NAMES
from ecosystem.clients import readable
from runtime.model.records import Record

_COUNTS = {
    "orders": "orders posted",
    "VALIDATED": "VALIDATED",
    "FAILED": "FAILED",
    "SHIPPED": "SHIPPED",
    "CANCELLED": "CANCELLED",
    "open": "open: not decided, and not overdue",
    "to be released": "FAILED, SHIPPED or CANCELLED just now, their stock still reserved",
    "moving": "moving: changed while the end offsets were looked up",
    "posted before": "posted before the first record read",
    "posted again": "orders posted again",
    "decided anew": "failed orders decided anew, by a replay",
    "published again": "final states published again",
    "rows written again": "unchanged rows written again",
    "verdicts": "verdicts",
    "late verdicts": "late verdicts, which had no effect",
    "verdicts on nothing": "verdicts on orders never posted",
    "unreadable": "unreadable messages",
    "misplaced": "misplaced messages, shown above: dead letters",
    "products": "products",
    "reserved": "pieces reserved",
    "moving products": "products that changed while the end offsets were looked up",
    "to be shipped": "to be shipped: all prerequisites were met just now",
    "to be refunded": "to be refunded: cancelled or paid just now",
    "refunds": "refunds announced",
    "refunds published again": "refunds announced again, which count once",
    "fulfilled again": "fulfilments published again",
    "check-ins": "check-ins",
    "check-ins stored": "check-ins in the database",
    "check-ins rejected": "check-ins rejected",
    "check-ins published again": "check-ins published again by the outbox, which count once",
    "check-ins rejected again": "check-ins rejected again",
    "to be published": "check-ins and changes to be published",
    "to be rejected": "check-ins to be rejected",
    "enriched": "orders enriched with their customer",
    "enriched again": "orders enriched again",
    "emails": "e-mails enqueued",
    "emails of a replay": "e-mails that a replay left out",
    "emails due": "e-mails due just now, or not yet accepted by the mail server",
    "emails enqueued again": "e-mails enqueued again",
    "emails rejected": "e-mails rejected permanently by the mail server: dead letters",
    "emails delivered": "e-mails delivered",
    "emails delivered again": "e-mails delivered again with the same Message-ID, which SMTP cannot rule out",
    "changes": "changes of products",
    "changes published again": "changes published again by the outbox, which count once",
    "products stored": "products in the database",
    "changes logged": "changes in the log of products",
    "to be logged": "changes to be logged",
    "to be read by subscribers": "changes that a subscriber has yet to read",
    "alerts": "alerts",
    "alerts published again": "alerts published again",
    "alerts due": "alerts due just now",
    "moving totals": "totals of products that changed while the end offsets were looked up",
    "wrong totals": "totals of products that differ from the changes",
    "notices": "e-mails about products enqueued",
    "notices due": "e-mails about products due just now",
    "notices enqueued again": "e-mails about products enqueued again",
    "notices delivered": "e-mails about products delivered",
    "notices delivered again": "e-mails about products delivered again with the same Message-ID",
    "other emails": "other e-mails in the Maildir",
}
_UNCHECKED = {
    "unchecked verdicts": "orders, against their verdicts, which no longer exist",
    "unchecked emails": "e-mails that were due: whether they were enqueued is no longer kept",
    "unchecked refunds": "refunds, against payments, which no longer exist",
    "unchecked products": "products, at every moment: only the end of their history exists, where the sums are right",
}
_ALWAYS_SHOWN = ("orders", "VALIDATED", "FAILED", "open", "verdicts", "late verdicts", "products", "reserved")


def print_report(report: Report, console: Console) -> None:
    """Prints violations with records, misplaced messages, counts, what was not checked, and the result."""
    for violation in report.violations:
        line = f"  {violation.subject_type} {violation.subject}: {violation.text}"
        console.print(Text.assemble((violation.kind, "red"), line))
        for fact in violation.records:
            console.print(Text(f"    {_line(fact, report.currency)}", "dim"), soft_wrap=True)
    if hidden := report.found.total() - len(report.violations):
        console.print(f"{hidden} more violations, of kinds shown above")
    for record in report.misplaced:
        line = f"  {record.topic} {record.partition}@{record.offset}: {record.text}"
        console.print(Text.assemble(("misplaced", "yellow"), line), soft_wrap=True)
    for cause in report.unreadable:
        console.print(Text(f"unreadable: {readable.printable(cause)}", "red"), soft_wrap=True)
    for name, description in _COUNTS.items():
        if report.counts[name] or name in _ALWAYS_SHOWN:
            console.print(f"{report.counts[name]:>12,}  {description}")
    for description in _unchecked(report):
        console.print(f"not checked: {description}")
    if report.ok:
        console.print(Text("No violation.", "green"))
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.found.most_common())
        console.print(Text(f"{report.found.total()} violations: {kinds}", "red"))


def as_json(report: Report) -> str:
    """Returns the report as one JSON object."""
    return json.dumps(
        {
            "ok": report.ok,
            "counts": {name.replace(" ", "_").lower(): report.counts[name] for name in _COUNTS},
            "not_checked": list(_unchecked(report)),
            "misplaced": [_misplaced(record) for record in report.misplaced],
            "unreadable": list(report.unreadable),
            "violations_by_kind": dict(report.found),
            "violations": [_violation(violation, report.currency) for violation in report.violations],
        }
    )


def _misplaced(record: MisplacedRecord) -> dict[str, Any]:
    fields = record._asdict()
    fields["says"] = fields.pop("text")
    return fields


def _violation(violation: Violation, currency: str) -> dict[str, Any]:
    return {
        "kind": violation.kind,
        violation.subject_type: violation.subject,
        "says": violation.text,
        "records": [
            {
                "topic": NAMES[fact.source],
                "partition": fact.partition,
                "offset": fact.offset,
                "time": _time(fact),
                "says": _content(fact, currency),
            }
            for fact in violation.records
        ],
    }


def _unchecked(report: Report) -> Iterator[str]:
    for name, description in _UNCHECKED.items():
        if report.counts[name]:
            yield f"{report.counts[name]} {description}"
    for topic in report.missing_topics:
        yield f"the topic {topic}: it does not exist"
    for service in report.absent_services:
        yield f"the service {service}: it has never run here"
    yield from report.not_compared


def _line(fact: Fact, currency: str) -> str:
    return f"{NAMES[fact.source]} {fact.partition}@{fact.offset}  {_time(fact)}  {_content(fact, currency)}"


def _content(fact: Fact, currency: str) -> str:
    record = Record(NAMES[fact.source], fact.partition, fact.offset, fact.time_ms, None, fact.value)
    return readable.content(record, currency)


def _time(fact: Fact) -> str:
    at = readable.moment(fact.time_ms)
    return f"{fact.time_ms} ms" if at is None else at.isoformat(timespec="milliseconds")

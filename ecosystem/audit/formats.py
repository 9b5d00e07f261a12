"""A report for people, and for machines."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from ecosystem.audit.facts import NAMES, Fact
from ecosystem.audit.report import Report, Violation
from ecosystem.clients import readable
from runtime.model.records import Record

_COUNTS = {
    "orders": "orders posted",
    "VALIDATED": "VALIDATED",
    "FAILED": "FAILED",
    "SHIPPED": "SHIPPED",
    "open": "open: not decided, and not overdue",
    "giving back": "FAILED or SHIPPED just now, and still holding their pieces",
    "moving": "changed while the ends were being found",
    "began before": "posted before what was read",
    "posted again": "posts of an order that was there",
    "announced again": "final states announced again",
    "rows written again": "rows written again as they were",
    "verdicts": "verdicts",
    "late verdicts": "late verdicts, which changed nothing",
    "verdicts on nothing": "verdicts on orders never posted",
    "unreadable": "messages that cannot be read",
    "misplaced": "messages in another partition than their key's, as shown above: dead letters",
    "products": "products",
    "reserved": "pieces reserved",
    "moving products": "products that changed while the ends were being found",
    "to be shipped": "to be shipped: all that is needed has happened just now",
    "fulfilled again": "orders announced as fulfilled again",
    "check-ins": "check-ins",
    "check-ins kept": "check-ins in the database",
    "check-ins rejected": "check-ins rejected",
    "check-ins announced again": "check-ins announced again by the outbox, which count once",
    "check-ins rejected again": "check-ins rejected again",
    "to be announced": "check-ins to be announced",
    "to be rejected": "check-ins to be rejected",
    "enriched": "orders enriched with their customer",
    "enriched again": "orders enriched again",
    "letters": "letters asked for",
    "letters to come": "letters to come: due just now, or not yet taken by the mail server",
    "letters asked for again": "letters asked for again",
    "letters refused": "letters that the mail server will never take: dead letters",
    "letters delivered": "letters delivered",
    "letters delivered again": "letters delivered again, as SMTP cannot rule out: each with the Message-ID it had",
    "changes": "changes of products",
    "changes announced again": "changes announced again by the outbox, which count once",
    "products kept": "products in the database",
    "changes logged": "changes in the log of products",
    "to be logged": "changes to be logged",
    "to be heard of": "products of which a subscriber is to hear",
    "alerts": "alerts",
    "alerts again": "alerts told again",
    "alerts to come": "alerts to come",
    "moving totals": "totals of products that changed while the ends were being found",
    "totals off": "totals of products that are not the sum of the changes",
    "notices": "letters about products",
    "notices to come": "letters about products to come",
    "notices asked for again": "letters about products asked for again",
    "notices delivered": "letters about products delivered",
    "notices delivered again": "letters about products delivered again, each with the Message-ID it had",
    "letters of others": "letters in the folder that are about no order and no product",
}
_UNCHECKED = {
    "unchecked verdicts": "orders, against their verdicts: these are no longer kept",
    "unchecked letters": "letters that were due: that they were asked for is no longer kept",
    "unchecked products": "products, at every moment: of their history only the end is kept, where the sums are right",
}
_ALWAYS = ("orders", "VALIDATED", "FAILED", "open", "verdicts", "late verdicts", "products", "reserved")


def show(report: Report, console: Console) -> None:
    """Violations with their records, misplaced messages, counts, what could not be checked, then the verdict."""
    for violation in report.violations:
        console.print(Text.assemble((violation.kind, "red"), f"  {violation.of} {violation.subject}: {violation.says}"))
        for fact in violation.records:
            console.print(Text(f"    {_line(fact, report.currency)}", "dim"), soft_wrap=True)
    if hidden := report.found.total() - len(report.violations):
        console.print(f"{hidden} more violations, of kinds shown above")
    for one in report.misplaced:
        where = f"  {one.topic} {one.partition}@{one.offset}: {one.says}"
        console.print(Text.assemble(("misplaced", "yellow"), where), soft_wrap=True)
    for said in report.unreadable:
        console.print(Text(f"unreadable: {readable.printable(said)}", "red"), soft_wrap=True)
    for name, words in _COUNTS.items():
        if report.counts[name] or name in _ALWAYS:
            console.print(f"{report.counts[name]:>12,}  {words}")
    for words in _unchecked(report):
        console.print(f"not checked: {words}")
    if report.ok:
        console.print(Text("No violation.", "green"))
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.found.most_common())
        console.print(Text(f"{report.found.total()} violations: {kinds}", "red"))


def as_json(report: Report) -> str:
    """The same as one JSON object."""
    return json.dumps(
        {
            "ok": report.ok,
            "counts": {name.replace(" ", "_").lower(): report.counts[name] for name in _COUNTS},
            "not_checked": list(_unchecked(report)),
            "misplaced": [one._asdict() for one in report.misplaced],
            "unreadable": list(report.unreadable),
            "violations_by_kind": dict(report.found),
            "violations": [_violation(violation, report.currency) for violation in report.violations],
        }
    )


def _violation(violation: Violation, currency: str) -> dict[str, Any]:
    return {
        "kind": violation.kind,
        violation.of: violation.subject,
        "says": violation.says,
        "records": [
            {
                "topic": NAMES[fact.source],
                "partition": fact.partition,
                "offset": fact.offset,
                "time": _time(fact),
                "says": _says(fact, currency),
            }
            for fact in violation.records
        ],
    }


def _unchecked(report: Report) -> Iterator[str]:
    for name, words in _UNCHECKED.items():
        if report.counts[name]:
            yield f"{report.counts[name]} {words}"
    for topic in report.missing:
        yield f"what the topic {topic} would tell: there is none"
    for service in report.absent:
        yield f"what the service {service} does: it has never run here"
    yield from report.unasked


def _line(fact: Fact, currency: str) -> str:
    return f"{NAMES[fact.source]} {fact.partition}@{fact.offset}  {_time(fact)}  {_says(fact, currency)}"


def _says(fact: Fact, currency: str) -> str:
    record = Record(NAMES[fact.source], fact.partition, fact.offset, fact.time_ms, None, fact.value)
    return readable.content(record, currency)


def _time(fact: Fact) -> str:
    at = readable.moment(fact.time_ms)
    return f"{fact.time_ms} ms" if at is None else at.isoformat(timespec="milliseconds")

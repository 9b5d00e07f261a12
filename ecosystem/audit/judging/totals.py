"""Promise: the totals of product-monitoring are the sums of the changes that it has counted."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ecosystem.audit.facts import Fact
from ecosystem.audit.judging.history import Observed
from ecosystem.audit.report import Rules, Violation, ViolationKind
from ecosystem.audit.sources import MODELS, Source
from product_subscribers.monitoring.processors import ALL
from schemas.api import ProductTotals
from schemas.messages import ProductEvent, ProductEventKind

_FIELDS = ("created", "updated", "withdrawn", "on_offer", "gaps")


class ExpectedTotals:
    """Totals that monitoring must have, by the version it has read of each product."""

    def __init__(self) -> None:
        self.moving = False
        self._expected: Counter[str] = Counter()

    def add(self, history: Sequence[Observed[ProductEvent]], counted: int) -> None:
        """Adds the changes of a product up to version `counted`."""
        known, on_offer = 0, False
        for seen in history:
            event = seen.message
            if not known < event.version <= counted:
                continue
            self._expected[event.kind.lower()] += 1
            self._expected["gaps"] += event.version - known - 1
            known, on_offer = event.version, event.kind is not ProductEventKind.WITHDRAWN
        self._expected["on_offer"] += on_offer

    def judge(self, facts: Sequence[Fact], rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
        """Compares the totals. With at_least_once a crash may separate them from the versions."""
        if not {Source.TOTALS, Source.MONITORING_VERSIONS} <= rules.seen or rules.from_ms.get(Source.CHANGES):
            return
        if self.moving or any(fact.late for fact in facts):
            counts["moving totals"] += 1
            return
        try:
            totals = MODELS[Source.TOTALS].from_json(facts[-1].value or b"") if facts else ProductTotals()
        except ValueError:
            yield Violation(ViolationKind.UNREADABLE_ROW, ALL, "the totals of products are unreadable", facts[-1:])
            return
        wrong = [name for name in _FIELDS if getattr(totals, name) != self._expected[name]]
        if wrong and rules.exactly_once:
            text = ", ".join(f"{name} {getattr(totals, name)} instead of {self._expected[name]}" for name in wrong)
            yield Violation(ViolationKind.TOTALS_DIFFER, ALL, text, facts[-1:])
        counts["wrong totals"] += bool(wrong)

"""The promise about monitoring: its totals are the sum of the changes it has counted."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ecosystem.audit.facts import MODELS, Fact, Source
from ecosystem.audit.judging.history import Observed
from ecosystem.audit.report import Kind, Rules, Violation
from product_subscribers.monitoring.counts import ALL
from schemas.api import ProductTotals
from schemas.messages import ProductEvent, ProductEventKind

_SUMS = ("created", "updated", "withdrawn", "on_offer", "gaps")


class Sums:
    """What monitoring's totals should be, as far as it has come with each product."""

    def __init__(self) -> None:
        self.moving = False
        self._due: Counter[str] = Counter()

    def add(self, history: Sequence[Observed[ProductEvent]], counted: int) -> None:
        """Counts the changes of a product up to version `counted`."""
        known, on_offer = 0, False
        for seen in history:
            event = seen.message
            if not known < event.version <= counted:
                continue
            self._due[event.kind.lower()] += 1
            self._due["gaps"] += event.version - known - 1
            known, on_offer = event.version, event.kind is not ProductEventKind.WITHDRAWN
        self._due["on_offer"] += on_offer

    def judge(self, facts: Sequence[Fact], rules: Rules, counts: Counter[str]) -> Iterator[Violation]:
        """Holds the totals against that. At least once a crash may come between them and what they count."""
        if not {Source.TOTALS, Source.COUNTED} <= rules.seen or rules.from_ms.get(Source.CHANGES):
            return
        if self.moving or any(fact.late for fact in facts):
            counts["moving totals"] += 1
            return
        try:
            totals = MODELS[Source.TOTALS].from_json(facts[-1].value or b"") if facts else ProductTotals()
        except ValueError:
            yield Violation(Kind.UNREADABLE_ROW, ALL, "the totals of products cannot be read", facts[-1:])
            return
        wrong = [name for name in _SUMS if getattr(totals, name) != self._due[name]]
        if wrong and rules.exactly_once:
            says = ", ".join(f"{name} {getattr(totals, name)} instead of {self._due[name]}" for name in wrong)
            yield Violation(Kind.TOTALS_DIFFER, ALL, says, facts[-1:])
        counts["totals off"] += bool(wrong)

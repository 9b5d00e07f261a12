"""Counts and latencies of a load generator."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.messages import OrderState

_MAX_LATENCIES = 10_000


@dataclass(slots=True)
class Tally:
    """Counts of orders and other actions. A SHIPPED order counts as VALIDATED, too."""

    posted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    check_ins: int = 0
    rejected: int = 0
    """Check-ins that were rejected, as expected."""
    price_changes: int = 0
    restored: int = 0
    """Products that were withdrawn and offered again."""
    failed_as_withdrawn: int = 0
    """Orders that failed because their product was withdrawn."""
    unfinished: int = 0
    """Orders, ghosts and changes of products that were stopped while a result was awaited."""
    mismatches: list[str] = field(default_factory=list)
    repeated: int = 0
    """Requests that were repeated."""
    latencies_s: list[float] = field(default_factory=list)
    """Seconds from POST to the outcome, of the latest orders."""

    def add_decided(self, state: str, latency_s: float) -> None:
        """Counts an order that has been read back as decided."""
        self.states[state] += 1
        self.latencies_s.append(latency_s)
        del self.latencies_s[:-_MAX_LATENCIES]

    def __str__(self) -> str:
        decided = [f"{count} {state}" for state, count in sorted(self.states.items()) if state != OrderState.SHIPPED]
        shipped = f" ({self.states[OrderState.SHIPPED]} SHIPPED)" if self.states[OrderState.SHIPPED] else ""
        latencies = sorted(self.latencies_s)
        parts = [
            f"{self.posted} posted: {', '.join(decided) or 'none decided yet'}{shipped}",
            f"{self.check_ins} check-ins, {self.rejected} rejected" if self.check_ins else "",
            f"{self.price_changes} prices changed" if self.price_changes else "",
            f"{self.restored} products withdrawn and offered again" if self.restored else "",
            f"{self.failed_as_withdrawn} orders of withdrawn products failed" if self.failed_as_withdrawn else "",
            f"{len(self.mismatches)} mismatches",
            f"p50 {_ms(latencies, 0.5)}, p99 {_ms(latencies, 0.99)} ms" if latencies else "",
            f"{self.repeated} requests repeated" if self.repeated else "",
            f"{self.unfinished} left unfinished" if self.unfinished else "",
        ]
        return "; ".join(filter(None, parts))


def _ms(ordered: Sequence[float], quantile: float) -> int:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000)

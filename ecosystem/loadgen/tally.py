"""What has come of the orders so far."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.messages import OrderState

_KEPT_TIMES = 10_000


@dataclass(slots=True)
class Tally:
    """Counts. An order that is SHIPPED was VALIDATED before, and counts as both."""

    posted: int = 0
    states: Counter[str] = field(default_factory=Counter)
    check_ins: int = 0
    rejected: int = 0
    """Check-ins that were rejected, as they had to be."""
    prices: int = 0
    """Changes of a product's price."""
    returns: int = 0
    """Products that were withdrawn and offered again."""
    turned_away: int = 0
    """Orders of withdrawn products that failed for that."""
    unfinished: int = 0
    """Orders, ghosts and changes of products that were left alone at the end with something still to come."""
    mismatches: list[str] = field(default_factory=list)
    repeated: int = 0
    seconds: list[float] = field(default_factory=list)
    """From the first POST to the outcome; the latest ones."""

    def decided(self, state: str, seconds: float) -> None:
        """An order has been read back as decided."""
        self.states[state] += 1
        self.seconds.append(seconds)
        del self.seconds[:-_KEPT_TIMES]

    def __str__(self) -> str:
        decided = [f"{count} {state}" for state, count in sorted(self.states.items()) if state != OrderState.SHIPPED]
        shipped = f" ({self.states[OrderState.SHIPPED]} SHIPPED)" if self.states[OrderState.SHIPPED] else ""
        times = sorted(self.seconds)
        parts = [
            f"{self.posted} posted: {', '.join(decided) or 'none decided yet'}{shipped}",
            f"{self.check_ins} check-ins, {self.rejected} rejected" if self.check_ins else "",
            f"{self.prices} prices changed" if self.prices else "",
            f"{self.returns} products withdrawn and back" if self.returns else "",
            f"{self.turned_away} orders of withdrawn products failed for that" if self.turned_away else "",
            f"{len(self.mismatches)} mismatches",
            f"p50 {_ms(times, 0.5)}, p99 {_ms(times, 0.99)} ms" if times else "",
            f"{self.repeated} requests repeated" if self.repeated else "",
            f"{self.unfinished} left unfinished" if self.unfinished else "",
        ]
        return "; ".join(filter(None, parts))


def _ms(ordered: Sequence[float], quantile: float) -> int:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] * 1000)

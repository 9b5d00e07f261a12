"""Measures rows on several systems in alternation, and the CPU time of every process meanwhile."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.comparison.generator import Generator
from bench.comparison.rows import FLOOD, HALF_READS, IDLE, READS, Row
from bench.comparison.system import System

Measurement = dict[str, Any]
"""What one run of one row found: the generator's figures, CPU by role, memory by role."""

BROKER = "broker"
_BEHIND_MS = 3000.0
"""p99 beyond which higher rates of an open loop are left out: the system has fallen behind."""
_SETTLE_S = 1.0
"""Pause after a row: work that it leaves behind must not count for the next row."""


class Comparison:
    """Measures systems that all run, one at a time.

    Arguments:
        systems: running.
        generator: of the load.
        products: that orders are spread over.
        report: called with each line of progress.
    """

    def __init__(
        self, systems: Sequence[System], generator: Generator, products: int, report: Callable[[str], None]
    ) -> None:
        self._systems = systems
        self._generator = generator
        self._products = products
        self._report = report
        self._behind: dict[str, float] = {}
        self._rates: dict[tuple[str, str], float] = {}
        """By row and system: the rate of the last closed loop. Other rows depend on it."""
        self.measured: dict[str, dict[str, list[Measurement]]] = {}
        """By row, then by system: one measurement for each pair."""

    def warm_up(self, seconds: Callable[[System], float]) -> None:
        """Loads each system with 64 clients, in which it compiles and fills what it compiles and fills."""
        for system in self._systems:
            if (duration := seconds(system)) > 0:
                self._report(f"warm-up of {system.name}: {duration:.0f} s")
                self._run(system, ("-clients", "64"), duration)

    def measure(self, rows: Sequence[Row], seconds: float, pairs: int) -> None:
        """Measures each row on each system, in alternation, so many times; the first of a pair alternates as well."""
        for row in rows:
            if row.needs_go and self._generator.is_fallback:
                self._report(f"{row.title}: left out, it needs Go")
                continue
            for pair in range(pairs):
                for system in self._systems if pair % 2 == 0 else reversed(self._systems):
                    if (found := self._row(row, system, seconds)) is not None:
                        self.measured.setdefault(row.name, {}).setdefault(system.name, []).append(found)

    def _row(self, row: Row, system: System, seconds: float) -> Measurement | None:
        if row.rate is not None and row.rate > self._behind.get(system.name, row.rate):
            self._report(f"{row.title:<34}{system.name:<24} left out: it had fallen behind at a lower rate")
            return None
        if (arguments := self._arguments(row, system)) is None:
            return None
        started, cpu = time.monotonic(), system.processes.cpu_seconds()
        if row is IDLE:
            time.sleep(min(5.0, seconds))
            found: Measurement = {"ok": 0, "errors": {}}
        else:
            found = self._run(system, arguments, row.share * seconds)
        found["wall_s"] = round(time.monotonic() - started, 2)
        found["cpu_s"] = {
            role: round(after - cpu.get(role, 0.0), 3) for role, after in system.processes.cpu_seconds().items()
        }
        found["rss_mib"] = {role: round(mib) for role, mib in system.processes.rss_mib().items()}
        system.processes.require_running()
        if row.rate is not None and (found.get("gave_up") or found["validated_p99"] > _BEHIND_MS):
            self._behind[system.name] = min(row.rate, self._behind.get(system.name, row.rate))
        if "-clients" in row.arguments:
            self._rates[row.name, system.name] = found["per_second"]
        self._report(f"{row.title:<34}{system.name:<24}{_line(found)}")
        time.sleep(_SETTLE_S)
        return found

    def _arguments(self, row: Row, system: System) -> tuple[str, ...] | None:
        """Returns the arguments of the generator; `None` if the row needs a rate that was not measured."""
        if row is HALF_READS:
            known = self._rates.get((READS.name, system.name))
            return (*row.arguments, "-rate", f"{known / 2:.0f}") if known else None
        if row is FLOOD:  # from near the rate that is looked for: each step costs time
            known = max(
                (rate for (name, of), rate in self._rates.items() if of == system.name and name != READS.name),
                default=0,
            )
            return (*row.arguments, "-rate", f"{max(0.7 * known, 50):.0f}")
        return row.arguments

    def _run(self, system: System, arguments: Sequence[str], seconds: float) -> Measurement:
        return self._generator.run(system.api, system.urls, (*arguments, "-products", str(self._products)), seconds)


def _line(found: Measurement) -> str:
    if "per_second" not in found:
        cpu = {role: 100 * seconds / found["wall_s"] for role, seconds in found["cpu_s"].items()}
        return "  ".join(f"{role} {share:.1f} % CPU" for role, share in cpu.items())
    cpu = {role: 1000 * seconds / max(found["ok"], 1) for role, seconds in found["cpu_s"].items()}
    costs = "several rates" if "steps" in found else "  ".join(f"{role} {ms:.2f}" for role, ms in cpu.items())
    errors = f"  errors {found['errors']}" if found["errors"] else ""
    return (
        f"{found['per_second']:>8.0f}/s  p50 {found['validated_p50']:.1f}  p99 {found['validated_p99']:.1f} ms"
        f"  CPU ms: {costs}{errors}"
    )

"""Tables of a comparison in Markdown: medians of all pairs, and quotients of ours and theirs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from bench.comparison.rows import FLOOD, IDLE, ROWS, Row

Report = dict[str, Any]
"""What a run wrote as JSON: `systems` by name, `rows` with the measurements of each system, and how it was run."""

_NONE = "–"
_KEPT = 0.8
"""Share of the rate of an open loop that answers must reach before its end: the last ones come after it anyway."""


def render(report: Report) -> str:
    """Returns how the run was made, and its tables."""
    names = list(report["systems"])
    parts = [_setting(report), _speed(report, names), _cpu(report, names), _footprint(report, names)]
    return "\n\n".join(part for part in parts if part) + "\n"


def medians(report: Report, row: str, system: str, of: Callable[[Mapping[str, Any]], float | None]) -> float | None:
    """Returns the median of a figure over the pairs; `None` if it was not measured."""
    found = [value for m in report["rows"].get(row, {}).get(system, []) if (value := of(m)) is not None]
    return median(found) if found else None


def per_second(measured: Mapping[str, Any]) -> float | None:
    return measured.get("per_second")


def latency(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    """Returns a reader of a percentile in ms, from the first request of an order to its outcome."""
    return lambda measured: measured.get(f"validated_{name}") if measured.get("ok") else None


def cpu_ms(role: str) -> Callable[[Mapping[str, Any]], float | None]:
    """Returns a reader of the CPU milliseconds of an order, or a read, that processes of a role spent."""
    return lambda m: 1000 * m["cpu_s"][role] / m["ok"] if m.get("ok") and role in m["cpu_s"] else None


def _setting(report: Report) -> str:
    runs = f"Medians of {report['pairs']} alternating runs" if report["pairs"] > 1 else "Single runs"
    lines = [
        f"{report['date']}, {report['machine']}. {runs} of {report['seconds']:g} s each, orders spread over "
        f"{report['products']} products"
        + (f", generator: {report['generator']}." if report["generator"] != "Go" else "."),
        "",
    ]
    for name, system in report["systems"].items():
        lines.append(
            f"- {name}: " + ", ".join(f"{part} {value}" for part, value in system["versions"].items() if value)
        )
    return "\n".join(lines)


def _speed(report: Report, names: Sequence[str]) -> str:
    head = ["load", *names, *(["ours : theirs"] if len(names) > 1 else [])]
    rows = []
    for row in _measured(report):
        cells = [_speed_cell(report, row, name) for name in names]
        rows.append([row.title, *cells, *([_quotients(report, row, names)] if len(names) > 1 else [])])
    return "Rate; p50 / p99 in ms from POST to VALIDATED:\n\n" + _table(head, rows) if rows else ""


def _speed_cell(report: Report, row: Row, name: str) -> str:
    rate = medians(report, row.name, name, per_second)
    if rate is None:
        return "fell behind" if row.rate is not None else _NONE
    both = " / ".join(_ms(medians(report, row.name, name, latency(p))) for p in ("p50", "p99"))
    if row is FLOOD:
        return f"{rate:,.0f}/s"
    errors = sum(sum(m["errors"].values()) for m in report["rows"][row.name][name])
    shown = both if row.rate is not None and rate >= _KEPT * row.rate else f"{rate:,.0f}/s; {both}"
    return shown + (f"; {errors:,} errors" if errors else "")


def _quotients(report: Report, row: Row, names: Sequence[str]) -> str:
    """Of rates, for loads that measure one; otherwise of p50 and p99."""
    if row.rate is None:
        return _quotient(*(medians(report, row.name, name, per_second) for name in names))
    return " / ".join(
        _quotient(*(medians(report, row.name, name, latency(p)) for name in names)) for p in ("p50", "p99")
    )


def _cpu(report: Report, names: Sequence[str]) -> str:
    columns = [(name, role) for name in names for role in _roles(report, name)]
    rows = [
        [row.title, *(_cpu_ms(medians(report, row.name, name, cpu_ms(role))) for name, role in columns)]
        for row in _measured(report)
        if row is not FLOOD
    ]
    if not rows:
        return ""
    return "CPU milliseconds an order, or a read, of each process:\n\n" + _table(
        ["load", *map(": ".join, columns)], rows
    )


def _footprint(report: Report, names: Sequence[str]) -> str:
    rows = []
    for name in names:
        runs = [m for systems in report["rows"].values() for m in systems.get(name, [])]
        idle = report["rows"].get(IDLE.name, {}).get(name, [])
        for role in _roles(report, name):
            shares = [100 * m["cpu_s"].get(role, 0.0) / m["wall_s"] for m in idle]
            most = max((m["rss_mib"].get(role, 0) for m in runs), default=0)
            started = report["systems"][name]["first_answer_s"]
            rows.append([name, role, f"{median(shares):.1f} %" if shares else _NONE, f"{most:,} MiB", f"{started} s"])
    return _table(["system", "process", "CPU without load", "largest RSS", "start to first outcome"], rows)


def _measured(report: Report) -> Iterator[Row]:
    return (row for row in ROWS.values() if row.name in report["rows"] and row is not IDLE)


def _roles(report: Report, name: str) -> list[str]:
    return list(
        dict.fromkeys(role for systems in report["rows"].values() for m in systems.get(name, []) for role in m["cpu_s"])
    )


def _quotient(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours is not None and theirs else _NONE


def _ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _cpu_ms(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

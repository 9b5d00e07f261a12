"""The parts of Grafana's dashboard model that the dashboards use: panels in rows of a grid of 24 columns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24

WORKERS = 'instance=~"$instance"'
"""Matcher of the workers that are chosen at the top of a dashboard."""


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and the legend of its series (`{{label}}` is replaced)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time, or with `kind` a single number (`stat`) or a `table` of the labels.

    Arguments:
        title: what is shown.
        queries: the series.
        unit: of Grafana: `s`, `bytes`, `ops`, `percentunit`, `short`.
        description: shown at the title; what to read from the panel.
        kind: `timeseries`, `stat` or `table`.
        width, height: in cells of the grid.
        alarm: a number turns red from here on.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    description: str = ""
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    alarm: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. Its file has the name `<uid>.json`."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def graph(title: str, *queries: Query | str, unit: str = "short", description: str = "", width: int = 8) -> Panel:
    """A graph over time."""
    return Panel(title, _queries(queries), unit, description, width=width)


def stat(title: str, expr: str, *, unit: str = "short", description: str = "", alarm: float | None = None) -> Panel:
    """A single number: the present one."""
    return Panel(title, (Query(expr),), unit, description, kind="stat", width=4, height=4, alarm=alarm)


def table(title: str, expr: str, *, description: str = "") -> Panel:
    """The labels of the present series, one row each."""
    return Panel(title, (Query(expr),), description=description, kind="table", width=COLUMNS, height=6)


def to_json(dashboard: Dashboard) -> str:
    """The dashboard as a file that Grafana provisions."""
    model = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["faust-orders"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "15s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "tags": ["faust-orders"],
                "title": "Faust Orders",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_instances()]},
        "panels": _panels(dashboard.rows),
    }
    return json.dumps(model, indent=1) + "\n"


def _queries(queries: Sequence[Query | str]) -> tuple[Query, ...]:
    return tuple(query if isinstance(query, Query) else Query(query) for query in queries)


def _instances() -> dict[str, Any]:
    query = "label_values(faust_orders_worker_info, instance)"
    return {
        "name": "instance",
        "label": "worker",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The panels with their places: from left to right, as many as fit, each row under a heading."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "gridPos": place, "panels": []})
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.alarm is not None:
        steps.append({"color": "red", "value": panel.alarm})
    now = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            **({"instant": True, "format": "table" if panel.kind == "table" else "time_series"} if now else {}),
        }
        for number, query in enumerate(panel.queries)
    ]
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind == "stat":
        options = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": targets,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": options,
    }

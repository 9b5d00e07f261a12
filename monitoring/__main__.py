"""Writes the Grafana dashboards: `python -m monitoring`."""

from pathlib import Path

from monitoring.dashboards import DASHBOARDS
from monitoring.grafana_model import to_json

FOLDER = Path(__file__).parent / "grafana" / "dashboards"


def main() -> None:
    """Writes one file for each dashboard, and removes all others."""
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(to_json(dashboard), "utf-8")


if __name__ == "__main__":
    main()

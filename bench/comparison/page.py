"""Writes the results of a run into `docs/performance.md`, between the markers of its name, and its plots beside."""

import json
from pathlib import Path

from bench.comparison.plot import plot
from bench.comparison.report import Report, render

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"


class UnknownResult(Exception):
    """The page has no place for results of this name."""


def write(report: Report, name: str, page: Path = PAGE, images: Path = IMAGES) -> None:
    """Replaces the results of a name. Raises `UnknownResult`.

    Arguments:
        report: of the run.
        name: as in the markers `<!-- results NAME -->` and `<!-- end NAME -->` of the page.
        page: the page.
        images: folder of the plots.
    """
    begin, end = f"<!-- results {name} -->", f"<!-- end {name} -->"
    text = page.read_text("utf-8")
    if begin not in text or end not in text:
        raise UnknownResult(f"{page} has no lines `{begin}` and `{end}`, between which the results would go")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    drawn = plot(report, images / f"performance-{name}.svg")
    picture = f"![Rates and latencies](images/{drawn.name})\n\n" if drawn else ""
    page.write_text(f"{before}{begin}\n\n{render(report)}\n{picture}{end}{after}", "utf-8")


def save(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def load(path: Path) -> Report:
    found: Report = json.loads(path.read_text("utf-8"))
    return found

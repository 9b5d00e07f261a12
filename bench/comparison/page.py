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
    """Replaces the results of a name by its tables and its plots. Raises `UnknownResult`.

    Arguments:
        report: of the run.
        name: as in the markers of the page, see `put`.
        page: the page.
        images: folder of the plots.
    """
    before, after = _split(name, page)  # raises before a plot is drawn that no page would show
    drawn = plot(report, images / f"performance-{name}.svg")
    picture = f"![Rates and latencies](images/{drawn.name})\n\n" if drawn else ""
    page.write_text(f"{before}\n\n{render(report)}\n{picture}{after}", "utf-8")


def put(content: str, name: str, page: Path) -> None:
    """Replaces the lines between `<!-- results NAME -->` and `<!-- end NAME -->` in a page. Raises `UnknownResult`.

    Arguments:
        content: Markdown that ends with a newline.
        name: of the markers.
        page: the page.
    """
    before, after = _split(name, page)
    page.write_text(f"{before}\n\n{content}{after}", "utf-8")


def _split(name: str, page: Path) -> tuple[str, str]:
    """The page up to the first marker, and from the second one on."""
    begin, end = f"<!-- results {name} -->", f"<!-- end {name} -->"
    text = page.read_text("utf-8")
    if begin not in text or end not in text:
        raise UnknownResult(f"{page} has no lines `{begin}` and `{end}`, between which the results would go")
    before, _, rest = text.partition(begin)
    return before + begin, end + rest.partition(end)[2]


def save(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def load(path: Path) -> Report:
    found: Report = json.loads(path.read_text("utf-8"))
    return found

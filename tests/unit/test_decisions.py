"""Decisions are numbered for ever, dated, and found by their index."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
FILES = sorted(FOLDER.glob("[0-9]*.md"))
HEAD = re.compile(
    r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \[\d+\]\([^)]+\)|rejected)  \nDate: (\d{4}-\d{2}-\d{2})\n\n"
)


def head(path):
    found = HEAD.match(path.read_text("utf-8"))
    assert found, f"{path.name} begins with title, status and date"
    return found.groups()


def test_numbers_have_no_gaps():
    assert [int(path.name[:4]) for path in FILES] == list(range(1, len(FILES) + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:4])
def test_file_and_index_have_the_number_and_the_title(path):
    number, title, status, date = head(path)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    assert path.name == f"{int(number):04d}-{slug}.md"
    assert f"| {number} | [{title}]({path.name}) | {status} | {date} |" in (FOLDER / "README.md").read_text("utf-8")


def test_the_index_has_no_other_decision():
    rows = re.findall(r"^\| \d+ \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(FILES)

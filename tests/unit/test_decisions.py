"""Decisions are numbered for ever, dated, and found by their index."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "decisions"
FILES = sorted(FOLDER.glob("[0-9]*.md"))
TEXTS = sorted(
    path
    for path in ROOT.rglob("*")
    if path.suffix in {".md", ".py", ".toml", ".yml"}
    and not any(part.startswith(".") and part != ".github" for part in path.relative_to(ROOT).parts)
    and "decision" in path.read_text("utf-8")
)
HEAD = re.compile(
    r"# (\d+)\. (.+)\n\nStatus: (accepted|superseded by \[\d+\]\([^)]+\)|rejected)  \nDate: (\d{4}-\d{2}-\d{2})\n\n"
)


def head(path):
    found = HEAD.match(path.read_text("utf-8"))
    assert found, f"{path.name} begins with title, status and date"
    return found.groups()


NUMBERS = [int(path.name[:4]) for path in FILES]


def test_numbers_are_unique_and_have_no_gaps():
    assert len(NUMBERS) == len(set(NUMBERS))
    assert sorted(NUMBERS) == list(range(1, len(NUMBERS) + 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:4])
def test_file_and_index_have_the_number_and_the_title(path):
    number, title, status, date = head(path)
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    assert path.name == f"{int(number):04d}-{slug}.md"
    assert f"| {number} | [{title}]({path.name}) | {status} | {date} |" in (FOLDER / "README.md").read_text("utf-8")


def test_the_index_has_no_other_decision():
    rows = re.findall(r"^\| \d+ \|", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) == len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name[:4])
def test_sections_come_in_one_order(path):
    sections = re.findall(r"^## (.+)$", path.read_text("utf-8"), re.MULTILINE)
    assert sections == [s for s in ("Context", "Decision", "Alternatives", "Consequences") if s in sections]
    assert {"Context", "Decision"} <= set(sections)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_decisions_resolve_and_say_their_number(path):
    text = path.read_text("utf-8")
    files = re.findall(r"\b\d{4}-[a-z0-9-]+\.md", text)
    assert [file for file in files if not (FOLDER / file).exists()] == []
    links = re.findall(r"\[(?:decision\s+)?(\d+)\]\([^)]*?(\d{4})-[a-z0-9-]+\.md\)", text)
    assert [link for link in links if int(link[0]) != int(link[1])] == []
    numbers = [int(number) for number in re.findall(r"\bdecision\s+(\d+)\b", text)]
    assert [number for number in numbers if number not in NUMBERS] == []

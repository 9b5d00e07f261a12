"""README and docs agree with the code: links, paths, commands, settings, metrics, findings and diagrams."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from click import Group
from prometheus_client import REGISTRY

from ecosystem.audit.report import ViolationKind
from ecosystem.cli.commands import settings
from ecosystem.cli.main import main
from ecosystem.cli.up import welcome
from ecosystem.services import NAMES, build
from runtime import errors
from runtime.common.settings import Settings, settings_classes
from runtime.data_loss import losses
from runtime.http.openapi import document
from schemas.topics import CATALOGUE
from tests.unit.test_imports import LAYERS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [str(path.relative_to(ROOT)) for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))]
TUTORIAL = "docs/tutorial/first-order.md"

README_LINES = 150
README_HEADINGS = [
    "Faust Orders",
    "An order in one picture",
    "Run it",
    "What is promised",
    "Where things are",
    "Documentation",
]


def read(path):
    return (ROOT / path).read_text("utf-8")


def blocks(path, language):
    """Contents of the fenced code blocks in this language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", read(path), re.MULTILINE | re.DOTALL)


def prose(path):
    """The document without its fenced code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", read(path), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# README


def test_readme_is_short_and_in_order():
    assert len(read("README.md").splitlines()) <= README_LINES
    assert re.findall(r"^#+ (.+)$", prose("README.md"), re.MULTILINE) == README_HEADINGS


def test_readme_has_one_picture_and_says_early_what_is_used_of_faust():
    assert len(blocks("README.md", "mermaid")) == 1
    introduction = read("README.md").split("\n## ")[0]
    assert "docs/explanation/if-you-know.md" in introduction


def test_readme_names_every_package():
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name not in {"tests", "runtime"}]
    rooms = [f"runtime/{path.parent.name}" for path in ROOT.glob("runtime/*/__init__.py")]
    assert [name for name in (*packages, *rooms) if f"`{name}/`" not in read("README.md")] == []


# Links and paths


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_and_paths_in_the_documentation_lead_somewhere(path):
    text, folder = read(path), (ROOT / path).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []
    tops = [top.name for top in ROOT.iterdir() if top.is_dir() and not top.name.startswith(".")]
    named = re.findall(rf"`((?:{'|'.join(map(re.escape, tops))})/[^`\s*<]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS)
def test_anchors_in_the_documentation_exist(path):
    folder = (ROOT / path).parent
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", prose(path)):
        if "://" not in target:
            document = (folder / target).resolve() if target else ROOT / path
            assert anchor in anchors(document), f"{target}#{anchor}"


def test_every_document_is_in_the_index():
    index = read("docs/README.md")
    pages = [Path(path).relative_to("docs") for path in DOCUMENTS if path.startswith("docs/")]
    own_index = {"decisions", "run-book"}
    missing = [str(p) for p in pages if p.parts[0] not in own_index and p.name != "README.md" and f"({p})" not in index]
    assert missing == []


def test_documents_named_in_code_exist():
    files = [p for folder in ("runtime", "ecosystem", "schemas", "tests") for p in (ROOT / folder).rglob("*.py")]
    files += [ROOT / name for name in ("docker-compose.yml", "Dockerfile", "Makefile", "pyproject.toml")]
    for file in files:
        for name in re.findall(r"\bdocs/[\w/-]+\.(?:md|json)", file.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{file.relative_to(ROOT)} names {name}"


# Commands


@pytest.mark.parametrize("path", DOCUMENTS)
def test_commands_in_the_documentation_exist(path):
    for words in re.findall(rf"\borders ((?:{'|'.join(main.commands)})\b[^\n`#|;]*)", read(path)):
        arguments = words.split()
        options = [a for a in arguments if a.startswith("--")]
        command = main.commands[arguments[0]]
        if isinstance(command, Group) and len(arguments) > 1:
            command = command.commands[arguments[1]]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
        assert set(options) <= known, words


def test_reference_lists_every_command():
    listed = re.findall(r"^\| `orders ([a-z-]+)", read("docs/reference/commands.md"), re.MULTILINE)
    assert sorted(set(listed)) == sorted(main.commands)


def test_reference_names_every_make_target():
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z-]+)", read("docs/reference/commands.md"), re.MULTILINE)
    assert targets - {"help"} == set(named)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_make_targets_in_the_documentation_exist(path):
    targets = set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", read(path), re.MULTILINE)) <= targets


def test_tutorial_and_orders_up_lead_to_shipped_by_the_same_commands(monkeypatch):
    """`tests/integration/test_up.py` types what `orders up` prints."""
    monkeypatch.setattr(welcome, "command", lambda: ".venv/bin/orders")
    said = welcome.first_order_commands(lambda _: "http://127.0.0.1:8080", Path(".data/mail/new"))
    commands = "".join(f"{line.removeprefix('  ')}\n" for line in said.splitlines() if line.startswith("  "))
    first, *typed, behind_the_scenes = blocks(TUTORIAL, "sh")
    assert first == "make run\n"
    assert "".join(typed) == commands
    assert all(line.startswith(".venv/bin/orders ") for line in behind_the_scenes.splitlines())
    assert any(commands.startswith(block) for block in blocks("README.md", "sh"))


# Reference tables


def test_the_page_of_settings_is_the_output_of_the_command():
    assert read("docs/reference/settings.md") == f"{settings.page()}\n", "orders settings > docs/reference/settings.md"


def test_every_setting_has_a_meaning():
    for kind in settings_classes():
        assert [name for name, field in kind.model_fields.items() if not field.description] == [], kind


METRIC_MODULES = (
    "runtime.metrics.commits",
    "runtime.metrics.database",
    "runtime.database.outbox",
    "runtime.http.metrics",
    "runtime.metrics.loop",
    "runtime.metrics.side_effects",
    "runtime.metrics.sink",
    "runtime.metrics.worker",
)
OF_PYTHON = ("python_gc_", "python_info", "process_")


def test_reference_lists_every_metric_with_its_type():
    for module in METRIC_MODULES:
        import_module(module)
    families = [family for family in REGISTRY.collect() if not family.name.startswith(OF_PYTHON)]
    have = {f.name + ("_total" if f.type == "counter" else ""): f.type for f in families}
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram)\b", read("docs/reference/metrics.md"), re.MULTILINE)
    assert dict(rows) == have


def test_reference_lists_every_event_and_stage_that_services_declare():
    text, services = read("docs/reference/metrics.md"), [definition.service for definition in build(NAMES, Settings())]
    for heading, declared in (
        ("Service events", {event for service in services for event in service.all_events}),
        ("Times of stages", {stage for service in services for stage in service.stages}),
    ):
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        column = 2 if heading == "Service events" else 1
        cells = [row.split("|")[column] for row in section.splitlines() if row.startswith("| ")]
        assert {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} == declared


def test_reference_lists_every_route():
    paths = document(build(NAMES, Settings()))["paths"]
    have = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    rows = re.findall(r"^\| (`(?:GET|POST|PUT|DELETE) .+?) \|", read("docs/reference/http.md"), re.MULTILINE)
    assert {name.split("?")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)} == have


def test_reference_lists_every_topic_with_key_value_and_writer():
    rows = re.findall(
        r"^\| (`.+?`) \| `(\w+)` \| `(\w+)` \| ([\w-]+) \|", read("docs/reference/topics.md"), re.MULTILINE
    )
    listed = {name: row for names, *row in rows for name in re.findall(r"`([\w-]+)`", names)}
    assert listed == {topic.name: [topic.key_field, topic.model.__name__, topic.writer] for topic in CATALOGUE}


def test_reference_lists_every_violation():
    cells = re.findall(r"^\| (`.+?) \|", read("docs/reference/audit-findings.md"), re.MULTILINE)
    assert sorted(name for cell in cells for name in re.findall(r"`([\w-]+)`", cell)) == sorted(ViolationKind)


def test_errors_in_the_reference_exist():
    named = re.findall(r"^\| `([A-Z]\w+)` \|", read("docs/reference/errors.md"), re.MULTILINE)
    assert named
    assert [name for name in named if not (hasattr(errors, name) or hasattr(losses, name))] == []


SOURCES = [path for path in ROOT.rglob("*.py") if not path.relative_to(ROOT).parts[0].startswith(".")]


def test_names_on_the_mapping_page_are_in_the_files_beside_them():
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| ((?:`[\w/.]+\.py`(?:, )?)+) \|$",
        read("docs/explanation/if-you-know.md"),
        re.MULTILINE,
    )
    assert len(rows) > 30
    for here, files in rows:
        source = "".join(read(file) for file in re.findall(r"`([^`]+)`", files))
        for name in re.findall(r"`(?:\w+\.)*(\w+)(?:\([^`]*\))?`", here):
            assert re.search(rf"\b{name}\b", source, re.IGNORECASE), f"{name} is not in {files}"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "/explanation/" in path and "if-you-know" not in path])
def test_classes_named_in_explanations_exist(path):
    classes = {
        name for source in SOURCES for name in re.findall(r"^class (\w+)", source.read_text("utf-8"), re.MULTILINE)
    }
    named = re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)+)`", prose(path))
    assert [name for name in named if name not in classes] == []


# Diagrams


DIAGRAMS = [(path, number) for path in DOCUMENTS for number, _ in enumerate(blocks(path, "mermaid"))]
ARROW = re.compile(r"^(\w+)\s*(?:-->>|->>|--x|-x|-->|->)\s*(\w+)\s*: ?(.+)$")
RESERVED = {
    "alt",
    "and",
    "box",
    "break",
    "create",
    "critical",
    "destroy",
    "else",
    "end",
    "link",
    "loop",
    "opt",
    "par",
    "rect",
}
SEQUENCE_WORDS = {"autonumber", "alt", "else", "end", "loop", "opt", "par", "and", "Note", "activate", "deactivate"}


@pytest.mark.parametrize(("path", "number"), DIAGRAMS)
def test_files_in_diagrams_exist(path, number):
    named = re.findall(r"\b[\w-]+(?:/[\w-]+)+\.(?:py|md)\b", blocks(path, "mermaid")[number])
    named += re.findall(r"\bruntime/\w+\b(?![./])", blocks(path, "mermaid")[number])
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("path", "number"), DIAGRAMS)
def test_diagrams_parse(path, number):
    """Known type, balanced blocks, declared participants; no `;` or `#`, which mermaid takes for its own."""
    kind, *lines = [line.strip() for line in blocks(path, "mermaid")[number].splitlines() if line.strip()]
    if kind.startswith("flowchart "):
        assert kind.split()[1] in {"LR", "TB", "TD", "RL", "BT"}
        for line in lines:
            assert all(line.count(left) == line.count(right) for left, right in ("[]", "()")), line
            assert re.search(r"-->|-\.->|-\. .* \.->|-- .* -->", line), line
            assert line.count('"') % 2 == 0, line
        return
    assert kind == "sequenceDiagram"
    participants, depth = set(), 0
    for line in lines:
        assert not re.search(r"[;#]", line), line
        if declared := re.match(r"(?:participant|actor) (\w+)(?: as .+)?$", line):
            assert declared[1] not in RESERVED, line
            participants.add(declared[1])
        elif arrow := ARROW.match(line):
            assert {arrow[1], arrow[2]} <= participants, line
        else:
            word = line.split()[0]
            assert word in SEQUENCE_WORDS, line
            depth += (word in {"alt", "loop", "opt", "par"}) - (word == "end")
            assert depth >= 0, line
    assert depth == 0


def test_the_order_s_way_shows_every_hop():
    way = next(block for block in blocks("docs/explanation/architecture.md", "mermaid") if "http.py" in block)
    for module in (
        "orders_service/http.py",
        "runtime/worker/worker.py",
        "runtime/loop/engine.py",
        "runtime/model/commands.py",
        "runtime/loop/poller.py",
        "runtime/faust_adapter/transport.py",
        "runtime/faust_adapter/app.py",
        "runtime/loop/loop.py",
        "runtime/loop/process.py",
        "runtime/loop/checkpoint.py",
        "runtime/state/rocks.py",
        "runtime/model/watch.py",
    ):
        assert module in way


def test_the_diagram_of_layers_is_that_of_the_imports():
    chart = next(block for block in blocks("docs/explanation/architecture.md", "mermaid") if "flowchart TB" in block)
    drawn = [set(label.split(", ")) for label in re.findall(r'\["([^"]+)"\]', chart)]
    assert drawn == [set(layer) for layer in reversed(LAYERS)]

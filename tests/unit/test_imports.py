"""Imports point one way: through the layers of the runtime, and from services into it by its public door."""

import ast
from pathlib import Path

import pytest

from ecosystem.services import FOUND

ROOT = Path(__file__).parents[2]
LAYERS = (
    ("errors",),
    ("common",),
    ("model",),
    ("metrics", "tracing"),
    ("data_loss", "kafka", "database"),
    ("observation", "state"),
    ("hosting", "side_effects", "sink"),
    ("group", "loop"),
    ("faust_adapter", "health", "http", "mail", "testing", "validator"),
    ("worker",),
)
"""Packages and modules of the runtime. Each imports itself and the layers above its own in this list."""

DOOR = {
    "runtime.common.clock",
    "runtime.common.partitioning",
    "runtime.common.settings",
    "runtime.database.migrations.steps",
    "runtime.database.outbox",
    "runtime.database.pool",
    "runtime.database.rows",
    "runtime.errors",
    "runtime.hosting",
    "runtime.kafka.dead_letter_reader",
    "runtime.mail.mailer",
    "runtime.mail.message",
    "runtime.mail.templates",
    "runtime.model.causes",
    "runtime.model.dead_letters",
    "runtime.model.records",
    "runtime.model.service",
    "runtime.model.sink",
    "runtime.observation.feed",
    "runtime.observation.groups",
    "runtime.sink.tables",
    "runtime.state.queues",
    "runtime.state.serial_effects",
    "runtime.state.sessions",
    "runtime.state.ttl_table",
    "runtime.state.versions",
    "runtime.validator",
}
"""What a service may import of the runtime, besides `runtime.http`."""

SERVICES = sorted({point.module.split(".")[0] for service in FOUND.values() for point in service.entry_points})
"""Top-level packages with services."""


def imports(path):
    """Modules of this repository that a file imports, those for type checks alone included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}".replace(".", "/")
                is_module = (ROOT / inner).is_dir() or (ROOT / f"{inner}.py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def part(module):
    """Of a module of the runtime: its package, or its own name."""
    return module.split(".")[1] if "." in module else ""


LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
RUNTIME = [p for p in sorted((ROOT / "runtime").rglob("*.py")) if p.name != "__init__.py" or p.parent.name == "http"]


def test_each_module_of_the_runtime_has_a_layer():
    parts = {path.relative_to(ROOT / "runtime").with_suffix("").parts[0] for path in RUNTIME}
    assert parts == set(LAYER)


@pytest.mark.parametrize("path", RUNTIME, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_runtime_imports_lower_layers_only(path):
    own = path.relative_to(ROOT / "runtime").with_suffix("").parts[0]
    used = {part(module) for module in imports(path) if module.startswith("runtime.")} - {own}
    assert not {other for other in used if LAYER[other] >= LAYER[own]}


@pytest.mark.parametrize("path", RUNTIME, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_runtime_knows_no_service(path):
    assert not {m.split(".")[0] for m in imports(path)} & {*SERVICES, "ecosystem", "tests", "bench"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_uses_the_public_door_and_no_other_service(service):
    for path in (ROOT / service).rglob("*.py"):
        for module in imports(path):
            top = module.split(".")[0]
            if top == "runtime":
                assert module in DOOR or module.startswith("runtime.http"), f"{path}: {module}"
            assert top not in {*SERVICES, "ecosystem", "tests", "bench"} - {service}, f"{path}: {module}"


def test_schemas_import_nothing_of_the_project():
    tops = {m.split(".")[0] for path in (ROOT / "schemas").rglob("*.py") for m in imports(path)}
    assert not tops & {*SERVICES, "runtime", "ecosystem", "tests", "bench"}


KAFKA_CLIENTS = {
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "create_conn",
}
OTHER_KAFKA_LIBRARIES = {"confluent_kafka", "kafka"}


def test_one_module_makes_all_kafka_clients():
    """So each client has the same TLS and login, time limits, isolation and acknowledgements."""
    made = {
        (path.relative_to(ROOT).as_posix(), name)
        for top in ("runtime", "ecosystem", "schemas", "bench", "examples", *SERVICES)
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        for name in {getattr(node.func, "id", None), getattr(node.func, "attr", None)} & KAFKA_CLIENTS
    }
    assert made == {("runtime/kafka/clients.py", name) for name in KAFKA_CLIENTS}


def test_each_kafka_client_gets_protocol_tls_and_login():
    """All but the client of embedded clusters, which reach their own listener without TLS."""
    tree = ast.parse((ROOT / "runtime/kafka/clients.py").read_text("utf-8"))
    without = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KAFKA_CLIENTS
        if not any(keyword.arg is None for keyword in node.keywords)  # `**options`
    }
    assert without == {"metadata_client"}
    options = {"_producer_options", "_consumer_options", "bare_client", "connection", "new_admin", "sender_client"}
    callers = {
        function.name
        for function in tree.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "connection_options"
    }
    assert callers == options


def test_no_other_kafka_library_is_used():
    for top in ("runtime", "ecosystem", "schemas", "bench", *SERVICES):
        for path in (ROOT / top).rglob("*.py"):
            names = {
                name.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text("utf-8")))
                for name in (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom) and not node.level
                    else []
                )
            }
            assert not names & OTHER_KAFKA_LIBRARIES, path


ECOSYSTEM = (
    ("embedded", "entry_points", "settings"),
    ("services",),
    ("clients",),
    ("audit", "doctor", "imports", "loadgen", "rebuild", "what_if"),
    ("replay",),
    ("cli",),
    ("smoke",),
)
"""Packages and modules of the ecosystem. Each imports itself and those before its own layer."""


def test_the_ecosystem_imports_lower_layers_only():
    layer = {name: number for number, names in enumerate(ECOSYSTEM) for name in names}
    for path in (ROOT / "ecosystem").rglob("*.py"):
        own = path.relative_to(ROOT / "ecosystem").with_suffix("").parts[0]
        if own == "__init__":
            continue
        used = {part(module) for module in imports(path) if module.startswith("ecosystem.")} - {own}
        assert not {other for other in used if layer[other] >= layer[own]}, path

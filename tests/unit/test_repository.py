"""Lock files, image and compose file agree with the code. `test_documentation.py` does the same for documentation."""

import json
import re
import tomllib
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ecosystem.cli.customer_import import read_file as read_customers
from ecosystem.cli.main import main
from ecosystem.cli.product_import import read_products
from ecosystem.embedded.kafka.jars import VERSION
from ecosystem.embedded.postgres import VERSION as POSTGRES
from ecosystem.loadgen import sample
from ecosystem.services import CORE, NAMES, build
from runtime.common.settings import Settings, settings_classes
from runtime.http.openapi import document
from schemas.messages import Customer
from tests import conftest
from tests.go_modules import COMPOSE, NotInstalled, folder_of

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PYTHONS = ("3.11", "3.12", "3.13")


def read(path):
    return (ROOT / path).read_text("utf-8")


def test_all_services_can_share_a_worker_and_its_document():
    validate(document(build(NAMES, Settings())))


# Lock files


def pins(path, python):
    """Version of each package that is installed on Linux with this Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.+?))? \\$", read(path), re.MULTILINE)
    return {
        canonicalize_name(name): version
        for name, version, marker in found
        if not marker or Marker(marker).evaluate(environment)
    }


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("path", LOCKS)
def test_lock_holds_what_the_project_asks_for(path, python):
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = list(project["dependencies"])
    if "dev" in path:
        wanted += project["optional-dependencies"]["dev"]
    have = pins(path, python)
    for requirement in map(Requirement, wanted):
        version = have.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in {path}: make lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, not {version}: make lock"


def test_image_and_tests_have_the_same_versions():
    run, dev = (pins(path, "3.11") for path in LOCKS)
    assert run.items() <= dev.items()


@pytest.mark.parametrize("path", LOCKS)
def test_lock_has_a_hash_for_everything_and_no_address(path):
    text = read(path)
    assert "://" not in text
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


# Image and compose file

KAFKA = ("kafka-1", "kafka-2", "kafka-3")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(read("docker-compose.yml"))


@pytest.fixture(scope="module")
def workers(compose):
    return {name: s for name, s in compose["services"].items() if s.get("command", [""])[0] == "run"}


def test_compose_file_keeps_to_the_specification(compose):
    try:
        schema = json.loads((folder_of(COMPOSE) / "schema" / "compose-spec.json").read_text("utf-8"))
    except NotInstalled as error:
        pytest.skip(str(error))
    faults = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(compose)]
    assert faults == []


def test_compose_profiles_are_two_workers_with_all_services_or_one_for_each_service(workers):
    by_profile = {}
    for service in workers.values():
        (profile,) = service["profiles"]
        by_profile.setdefault(profile, []).append(tuple(service["command"][1:]))
    assert {profile: sorted(map(sorted, found)) for profile, found in by_profile.items()} == {
        "core": [sorted(NAMES)] * 2,
        "apart": sorted([name] for name in NAMES),
    }
    assert "COMPOSE_PROFILES=core\n" in read(".env")


def test_compose_commands_are_commands_of_ours(compose, workers):
    for service in workers.values():
        command = main.commands[service["command"][0]]
        assert command.make_context("run", list(service["command"][1:]), resilient_parsing=False)
    (script,) = compose["services"]["sample"]["command"]
    for words in re.findall(r"orders (.+)", script):
        result = CliRunner().invoke(main, [*words.replace("$$product", "mug").split(), "--help"])
        assert result.exit_code == 0, result.output


def test_compose_announces_the_sample_stock(compose):
    (script,) = compose["services"]["sample"]["command"]
    products = re.search(r"for product in ([^;]+);", script)[1].split()
    assert sorted([*products, "signed-poster"]) == sorted(level.product for level in sample.stock())


def test_compose_announces_the_sample_products(compose):
    assert read_products("products", compose["configs"]["products"]["content"].splitlines()) == sample.products()


def test_compose_announces_some_of_the_sample_customers(compose, tmp_path):
    path = tmp_path / "customers.csv"
    path.write_text(compose["configs"]["customers"]["content"])
    announced = [Customer(**customer.model_dump()) for customer in read_customers(path)]
    assert announced == list(islice(sample.customers(), 5))


def test_compose_sets_only_what_is_a_setting(compose):
    known = {name.upper() for kind in settings_classes() for name in kind.model_fields}
    for name, service in compose["services"].items():
        if service["image"] == "faust-orders":
            assert set(service.get("environment", {})) <= known, name


def filled(text):
    """With the defaults of its variables."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def test_compose_has_a_database_for_each_service_that_keeps_one(compose, workers):
    script = filled(compose["configs"]["databases"]["content"])
    made = dict(re.findall(r"^CREATE ROLE (\w+) LOGIN PASSWORD '(\w+)';$", script, re.MULTILINE))
    for worker in workers.values():
        for variable, value in worker["environment"].items():
            if variable.endswith("_DATABASE_URL"):
                name = variable.removesuffix("_DATABASE_URL").lower()
                assert filled(value) == f"postgresql://{name}:{made[name]}@postgres:5432/{name}"
                assert f"CREATE DATABASE {name} OWNER {name};" in script
                assert f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;" in script
    assert compose["services"]["postgres"]["image"] == f"postgres:{POSTGRES}"


def test_compose_environment_is_a_valid_configuration(workers, monkeypatch):
    for name, service in workers.items():
        for variable, value in service["environment"].items():
            monkeypatch.setenv(variable, filled(value))
        settings = Settings()
        assert str(settings.base_url(0)) == f"http://{name}:8080"
        assert settings.kafka_bootstrap_servers == "kafka-1:19092,kafka-2:19092,kafka-3:19092"
        assert settings.replication_factor == 3
        assert settings.worker_keys == ()


def test_compose_has_what_it_refers_to(compose):
    services, mounted = compose["services"], []
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
        assert all((ROOT / source).exists() for source in sources if source.startswith("."))
        mounted += [source for source in sources if not source.startswith(".")]
    assert sorted(mounted) == sorted(compose["volumes"]), "every volume is there, and of one service only"


def test_compose_waits_for_health_and_gives_time_to_stop(compose, workers):
    assert all(compose["services"][node]["healthcheck"]["test"] for node in KAFKA)
    for service in workers.values():
        assert service["depends_on"] == {node: {"condition": "service_healthy"} for node in KAFKA}
        assert "/healthz" in service["healthcheck"]["test"][-1]
        assert int(service["stop_grace_period"].removesuffix("s")) >= 30


@pytest.mark.parametrize("profile", ["core", "apart"])
def test_compose_publishes_each_port_once_and_to_this_machine_only(compose, profile):
    services = [s for s in compose["services"].values() if profile in s.get("profiles", [profile])]
    ports = [port for service in services for port in service.get("ports", [])]
    addresses, published, _ = zip(*(port.split(":") for port in ports), strict=True)
    assert set(addresses) == {"127.0.0.1"}
    assert max(Counter(published).values()) == 1
    described = re.findall(r"\b\d{4,5}\b", read("docs/how-to/run-with-docker.md"))
    assert set(published) - {"3001"} <= set(described), "docs/how-to/run-with-docker.md lists what listens where"


def test_compose_runs_the_kafka_that_is_tested_against(compose):
    assert {compose["services"][node]["image"] for node in KAFKA} == {f"apache/kafka:{VERSION}"}


def test_compose_limits_the_memory_of_each_service(compose):
    without = {n for n, s in compose["services"].items() if "memory" not in str(s.get("deploy"))}
    assert without == {"sample"}, "which ends by itself"


def test_the_collector_passes_on_to_jaeger(compose):
    config = yaml.safe_load(read("deploy/otel-collector.yml"))
    for kind, names in config["service"]["pipelines"]["traces"].items():
        assert set(names) <= set(config[kind])
    assert config["exporters"]["otlp/jaeger"]["endpoint"].split(":")[0] in compose["services"]
    variable = compose["x-environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert variable == "${OTEL_EXPORTER_OTLP_ENDPOINT:-}", "off unless asked for: a collector that is not there costs"


def test_the_balancer_knows_every_worker_that_runs_the_orders_service(workers):
    servers = re.findall(r"^    server (\S+) \1:8080$", read("deploy/haproxy.cfg"), re.MULTILINE)
    assert sorted(servers) == sorted(name for name, worker in workers.items() if "orders" in worker["command"])


def test_image_has_every_package_and_may_write_where_compose_mounts(compose, workers):
    dockerfile = read("Dockerfile")
    copied = re.findall(r"^COPY (\w+) \1$", dockerfile, re.MULTILINE)
    packages = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert sorted(copied) == sorted(name.removesuffix("*") for name in packages)
    assert {f"!{name}" for name in copied} <= set(read(".dockerignore").splitlines())
    state = re.search(r"STATE_DIR=(\S+)", dockerfile)[1]
    assert f"install --directory --owner=orders --group=orders {state}" in dockerfile
    assert all(service["volumes"][0].endswith(f":{state}") for service in workers.values())
    assert re.search(r"^USER orders$", dockerfile, re.MULTILINE)


def test_image_starts_the_core_and_checks_its_health():
    dockerfile = read("Dockerfile")
    run, *services = json.loads(re.search(r"^CMD (.+)$", dockerfile, re.MULTILINE)[1])
    assert (run, sorted(services)) == ("run", sorted(CORE))
    check = json.loads(re.search(r"HEALTHCHECK.*?CMD (\[.+?\])$", dockerfile, re.MULTILINE | re.DOTALL)[1])
    compile(check[-1], "HEALTHCHECK", "exec")
    assert "/healthz" in check[-1]


@pytest.mark.parametrize("name", [*conftest.CAMPAIGNS, *conftest.SLOW_FILES])
def test_lists_of_tests_name_tests_that_exist(name):
    file, _, function = name.partition("::")
    assert f"def {function}" in (ROOT / "tests" / file).read_text()

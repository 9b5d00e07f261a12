"""The AsyncAPI document is valid, as committed, and right about messages of all versions."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator

from ecosystem.cli.main import main
from ecosystem.services import NAMES, build
from runtime.common.settings import Settings, settings_classes
from runtime.http.asyncapi import document
from runtime.kafka.topics import topics_of
from runtime.model.topology import Topology
from schemas.topics import CATALOGUE
from tests.go_modules import ASYNCAPI, NotInstalled, folder_of

COMMITTED = Path(__file__).parents[2] / "docs" / "asyncapi.json"


@pytest.fixture(scope="module")
def printed():
    """The output of `orders asyncapi` with default settings."""
    variables = [name.upper() for kind in settings_classes() for name in kind.model_fields]
    result = CliRunner().invoke(main, ["asyncapi"], env=dict.fromkeys(variables))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def described(printed):
    return json.loads(printed)


def payload(described, message):
    schema = described["components"]["messages"][message]["payload"]
    return Draft7Validator({**schema, "components": described["components"]})


def test_the_committed_document_is_up_to_date(printed):
    assert COMMITTED.read_text() == printed, "Write it anew: .venv/bin/orders asyncapi > docs/asyncapi.json"


@pytest.fixture(scope="module")
def schema():
    """The schema of AsyncAPI documents."""
    try:
        return json.loads((folder_of(ASYNCAPI) / "schemas" / "3.0.0-without-$id.json").read_text("utf-8"))
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("names", [NAMES, *[(name,) for name in NAMES]], ids="+".join)
def test_the_document_of_any_worker_is_valid(names, schema):
    described = document(build(names, Settings()), Settings(topic_prefix="mine-"))

    faults = [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(described)]
    assert faults == []
    text = json.dumps(described)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found = described
        for step in reference.split("/"):
            found = found[step]
    assert described["components"]["parameters"]["prefix"]["default"] == "mine-"


def test_every_topic_except_changelogs_is_a_channel(described):
    plan = Topology(tuple(hosted.service for hosted in build(NAMES, Settings())))
    changelogs = {table.changelog for table in plan.tables.values()}
    public = {name for topic in CATALOGUE for name in (topic.name, topic.dead_letters)}
    assert set(described["channels"]) == public | set(topics_of(plan)) - changelogs


def test_operations_are_what_services_declare(described):
    for hosted in build(NAMES, Settings()):
        service = hosted.service
        mine = [o for o in described["operations"].values() if o["tags"] == [{"name": service.name}]]
        received = {o["channel"]["$ref"] for o in mine if o["action"] == "receive"}
        sent = {o["channel"]["$ref"] for o in mine if o["action"] == "send"}
        assert received == {f"#/channels/{topic.name}" for topic in service.topics}
        assert sent == {f"#/channels/{topic.name}" for topic in service.outputs} | {
            f"#/channels/{topic.dead_letters}" for topic in service.topics
        }


def test_internal_topics_and_tombstones_are_described(described):
    internal = {name for name, c in described["channels"].items() if {"name": "internal"} in c.get("tags", ())}
    assert {"fraud-orders-by-customer", "fulfilment-payments-by-order"} <= internal
    assert not internal & {topic.name for topic in CATALOGUE}
    assert list(described["channels"]["customers"]["messages"]) == ["customers", "customers.tombstone"]
    assert list(described["channels"]["orders"]["messages"]) == ["orders"]


def golden(topic, version=""):
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", topic.model.__name__).lower()
    return json.loads((Path(__file__).parent / "golden" / f"{name}{version}.json").read_text())


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_messages_conform_to_the_document(described, topic):
    validator = payload(described, topic.name)
    message = golden(topic)
    validator.validate(message)
    validator.validate(golden(topic, ".later"))
    key = described["components"]["messages"][topic.name]["bindings"]["kafka"]["key"]
    Draft7Validator(key).validate(topic.key(topic.model.model_validate(message)))
    for name in described["components"]["schemas"][topic.model.__name__]["required"]:
        assert not validator.is_valid({k: v for k, v in message.items() if k != name}), f"without {name}"
        assert not validator.is_valid({**message, name: [None]}), f"{name} of no type it has"

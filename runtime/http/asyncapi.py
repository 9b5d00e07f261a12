"""The AsyncAPI 3.0 document: topics, messages and who sends or receives them, from what services declare.

Bindings are Kafka's, 0.5.0 (github.com/asyncapi/bindings). Changelogs are not in it: they are their services' own.
"""

from collections.abc import Container, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.kafka.topics import public_topics, topics_of
from runtime.model.records import CONSUMED_BY, EVENT_ID, MADE_AT
from runtime.model.topology import Topology
from schemas.topics import CATALOGUE, Topic

_SCHEMAS = "#/components/schemas/"
_KAFKA = {"bindingVersion": "0.5.0"}
_TEXT = {"type": "string"}
_NUMBER = {"type": "string", "pattern": "^-?[0-9]+$"}

_MARK = {
    CONSUMED_BY: _TEXT | {"description": "Group of workers that decided the message in the batch that announced it"}
}
_MADE = {MADE_AT: _NUMBER | {"description": "When what it follows from was written, in milliseconds since 1970"}}
_ONCE = {
    EVENT_ID: _TEXT
    | {"format": "uuid", "description": "The same on every copy of a message that was written again: count it once"}
}
_REASON = {
    "service": _TEXT | {"description": "Who failed on it"},
    "error": _TEXT | {"description": "Why"},
    "topic": _TEXT | {"description": "Where it was, without the prefix"},
    "partition": _NUMBER,
    "offset": _NUMBER | {"description": "-1 for a message that never left its worker"},
    "time": _TEXT | {"format": "date-time"},
}
_CUT = {"cut": _NUMBER | {"description": "Bytes it had, if it was too large to be kept whole"}}


def document(hosted: Iterable[ServiceDefinition], settings: Settings, *, catalogue: bool = False) -> dict[str, Any]:
    """The document of these services.

    Arguments:
        hosted: the services.
        settings: of a worker that runs them: its brokers, its prefix, and how topics are made.
        catalogue: whether the public topics that none of them touches are in it as well.
    """
    parts = tuple(hosted)
    topology = Topology(tuple(h.service for h in parts))
    topics = {t.name: t for t in (*(CATALOGUE if catalogue else ()), *topology.topics)}
    made = {**(public_topics() if catalogue else {}), **topics_of(topology)}
    relayed = {topic.name for h in parts if h.outbox is not None for topic in h.service.outputs}
    payloads, described = models_json_schema(
        [(model, "serialization") for model in dict.fromkeys(t.model for t in topics.values())],
        ref_template=_SCHEMAS + "{model}",
    )
    schemas = described.get("$defs", {})
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for topic in topics.values():
        payload = payloads[topic.model, "serialization"]
        key = _key(topic, _of(payload, schemas), schemas)
        headers = _headers(topic, topology, relayed)
        messages[topic.name] = {
            "name": topic.model.__name__,
            "summary": (topic.model.__doc__ or "").strip().partition("\n")[0],
            **({"headers": headers} if headers else {}),
            "payload": payload,
            **key,
        }
        messages[topic.dead_letters] = _dead_letter(topic, headers.get("properties", {}))
        own = [topic.name]
        if topic.name in topology.tombstones:
            gone = "No value: what stands under the key is gone"
            tombstone = {"name": "Tombstone", "summary": gone, "payload": {"type": "null"}, **key}
            messages[f"{topic.name}.tombstone"] = tombstone
            own.append(f"{topic.name}.tombstone")
        channels[topic.name] = _channel(topic.name, _summary(topic), made[topic.name], own, settings)
        if topic.internal:
            channels[topic.name]["tags"] = [{"name": "internal"}]
        channels[topic.dead_letters] = _channel(
            topic.dead_letters,
            f"What could not be processed of `{topic.name}`, as it was",
            made[topic.dead_letters],
            [topic.dead_letters],
            settings,
        ) | {"tags": [{"name": "dead letters"}]}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Faust Orders",
            "version": version("faust-orders"),
            "description": "Keys are UTF-8 text and go to partitions by murmur2, as in Kafka's Java client; values are "
            "JSON. Readers pass over fields and headers they do not know, and read committed messages only.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{brokers}",
                "protocol": "kafka",
                "variables": {"brokers": {"default": settings.kafka_bootstrap_servers}},
            }
        },
        "channels": channels,
        "operations": _operations(parts, channels),
        "components": {
            "messages": messages,
            "schemas": schemas,
            "parameters": {
                "prefix": {"default": settings.topic_prefix, "description": "TOPIC_PREFIX of the deployment"}
            },
        },
    }


def _channel(
    name: str, summary: str, config: Mapping[str, str], messages: Iterable[str], settings: Settings
) -> dict[str, Any]:
    return {
        "address": f"{{prefix}}{name}",
        "summary": summary,
        "messages": {m: {"$ref": f"#/components/messages/{m}"} for m in messages},
        "parameters": {"prefix": {"$ref": "#/components/parameters/prefix"}},
        "bindings": {
            "kafka": {
                "partitions": settings.partitions,
                "replicas": settings.replication_factor,
                "topicConfiguration": {key: _value(key, text) for key, text in config.items()},
                **_KAFKA,
            }
        },
    }


def _value(key: str, text: str) -> Any:
    """A topic's configuration as the binding has it."""
    if key == "cleanup.policy":
        return text.split(",")
    return int(text) if text.lstrip("-").isdigit() else text


def _summary(topic: Topic[Any]) -> str:
    said = f"{topic.model.__name__}, keyed by `{topic.key_field or 'what it is about'}`; written by: {topic.writer}"
    return f"Internal to its writer. {said}" if topic.internal else said


def _headers(topic: Topic[Any], topology: Topology, relayed: Container[str]) -> dict[str, Any]:
    """What is relayed may be written again; what a processor sends may be decided at once, and is marked if public.

    What comes to an internal topic was not decided at once, and tells when it was made.
    """
    if topic.name in relayed:
        return {"type": "object", "required": [EVENT_ID], "properties": _ONCE}
    if topic.internal:
        return {"type": "object", "required": [MADE_AT], "properties": _MADE}
    if topic.name in topology.written:
        return {"type": "object", "properties": _MARK}
    return {}


def _dead_letter(topic: Topic[Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own`: the headers that the message itself may have had."""
    return {
        "name": "DeadLetter",
        "summary": "Key, value and headers as they were, and behind those the reason",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "required": list(_REASON), "properties": {**own, **_REASON, **_CUT}},
        "payload": {"description": f"Bytes, perhaps no {topic.model.__name__} at all"},
    }


def _key(topic: Topic[Any], schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The binding that says what keys look like: the field they are taken from, as text."""
    field = _of(schema["properties"].get(topic.key_field, {}), schemas)
    key = {name: value for name, value in field.items() if name in {"type", "minLength", "maxLength", "pattern"}}
    return {"bindings": {"kafka": {"key": _NUMBER if key.get("type") == "integer" else key or _TEXT, **_KAFKA}}}


def _of(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema refers to, if it does: the binding would have no reference."""
    return schemas[schema["$ref"].removeprefix(_SCHEMAS)] if "$ref" in schema else schema


def _operations(hosted: Iterable[ServiceDefinition], channels: Mapping[str, Any]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for service in (h.service for h in hosted):
        failing = [topic.dead_letters for topic in service.topics]
        sent = [*(topic.name for topic in service.outputs), *failing]
        for action, names in (("receive", [topic.name for topic in service.topics]), ("send", sent)):
            for name in names:
                operations[f"{service.name}.{action}.{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"The service {service.name} {action}s {name}",
                    "tags": [{"name": service.name}],
                    "messages": [{"$ref": f"#/channels/{name}/messages/{m}"} for m in channels[name]["messages"]],
                }
    return operations

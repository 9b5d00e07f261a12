"""Generates the AsyncAPI 3.0 document: topics, messages, and the services that send and receive them.

Bindings are Kafka's, 0.5.0 (github.com/asyncapi/bindings). Changelogs are omitted: they are private to their services.
"""

from collections.abc import Container, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.kafka.topics import public_topics, topics_of
from runtime.model.records import (
    ALSO_CONSUMED_BY,
    CONSUMED_BY,
    EVENT_ID,
    MADE_AT,
    REDRIVEN,
    REPLAYED_FROM,
    REPLAYS,
    SIDE_EFFECTS,
)
from runtime.model.topology import Topology
from runtime.model.traces import REPLAYED_TRACE, TRACEPARENT, TRACESTATE
from schemas.topics import CATALOGUE, Topic

_SCHEMAS = "#/components/schemas/"
_KAFKA = {"bindingVersion": "0.5.0"}
_TEXT = {"type": "string"}
_NUMBER = {"type": "string", "pattern": "^-?[0-9]+$"}

_CONSUMED_BY = {
    CONSUMED_BY: _TEXT | {"description": "Consumer group that processed the message in the batch that produced it"},
    ALSO_CONSUMED_BY: _TEXT | {"description": "Services that joined this group and processed the message as well"},
}
_REPEATED = {
    REPLAYED_FROM: _TEXT | {"description": "Topic, partition and offset of the message that was replayed, or led here"},
    REPLAYS: _NUMBER | {"description": "How often that message has been replayed"},
    REPLAYED_TRACE: _TEXT | {"description": "`traceparent` of the message that was replayed"},
    SIDE_EFFECTS: _TEXT | {"description": "`perform`: the replay has side effects, such as e-mails"},
    REDRIVEN: _NUMBER | {"description": "How often the message was redriven from its dead letters"},
}
_TRACE = {
    TRACEPARENT: _TEXT | {"description": "Trace of the message, and span that sent it (W3C); absent without traces"},
    TRACESTATE: _TEXT | {"description": "What other tracing systems add to it"},
}
_ANY = _REPEATED | _TRACE
"""Headers that any message may have."""

_EVENT_TIME = {MADE_AT: _NUMBER | {"description": "Event time: when the source message was written, ms since 1970"}}
_EVENT_ID = {
    EVENT_ID: _TEXT | {"format": "uuid", "description": "The same on every repetition of a message, for deduplication"}
}
_REASON = {
    "service": _TEXT | {"description": "Service that failed to process it"},
    "error": _TEXT | {"description": "Cause"},
    "topic": _TEXT | {"description": "Its topic, without the prefix"},
    "partition": _NUMBER,
    "offset": _NUMBER | {"description": "-1 for a message that was processed before it was written to its topic"},
    "time": _TEXT | {"format": "date-time"},
}
_CUT = {"cut": _NUMBER | {"description": "Original size in bytes, if it was truncated"}}


def document(hosted: Iterable[ServiceDefinition], settings: Settings, *, catalogue: bool = False) -> dict[str, Any]:
    """The document of these services.

    Arguments:
        hosted: the services.
        settings: of a worker that runs them: brokers, prefix, partitions and replication of topics.
        catalogue: whether to include public topics that none of the services uses.
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
        key = _key(topic, _resolved(payload, schemas), schemas)
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
            summary = "No value: deletes the key"
            tombstone = {"name": "Tombstone", "summary": summary, "payload": {"type": "null"}, **key}
            messages[f"{topic.name}.tombstone"] = tombstone
            own.append(f"{topic.name}.tombstone")
        channels[topic.name] = _channel(topic.name, _summary(topic), made[topic.name], own, settings)
        if topic.internal:
            channels[topic.name]["tags"] = [{"name": "internal"}]
        channels[topic.dead_letters] = _channel(
            topic.dead_letters,
            f"Messages of `{topic.name}` that could not be processed, unchanged",
            made[topic.dead_letters],
            [topic.dead_letters],
            settings,
        ) | {"tags": [{"name": "dead letters"}]}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Faust Orders",
            "version": version("faust-orders"),
            "description": "Keys are UTF-8 text, placed on partitions by murmur2 as in Kafka's Java client; values are "
            "JSON. Consumers ignore unknown fields and headers, and use the isolation level read_committed.",
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
    """A value of a topic's configuration in the types of the binding."""
    if key == "cleanup.policy":
        return text.split(",")
    return int(text) if text.lstrip("-").isdigit() else text


def _summary(topic: Topic[Any]) -> str:
    summary = f"{topic.model.__name__}, keyed by `{topic.key_field or 'its subject'}`; written by: {topic.writer}"
    return f"Internal to its writer. {summary}" if topic.internal else summary


def _headers(topic: Topic[Any], topology: Topology, relayed: Container[str]) -> dict[str, Any]:
    """The headers of a topic's messages.

    A message from an outbox may be repeated, and has an event id. One on a repartition topic has its event time. One
    that a processor sends to a public topic may be fused, and then has `consumed-by`. Any may be replayed or redriven.
    """
    if topic.name in relayed:
        return {"type": "object", "required": [EVENT_ID], "properties": _EVENT_ID | _ANY}
    if topic.internal:
        return {"type": "object", "required": [MADE_AT], "properties": _EVENT_TIME | _ANY}
    if topic.name in topology.written:
        return {"type": "object", "properties": _CONSUMED_BY | _ANY}
    return {"type": "object", "properties": _ANY}


def _dead_letter(topic: Topic[Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`own`: the headers of the message itself."""
    return {
        "name": "DeadLetter",
        "summary": "The message with its key, value and headers, and further headers with the cause",
        "contentType": "application/octet-stream",
        "headers": {"type": "object", "required": list(_REASON), "properties": {**own, **_REASON, **_CUT}},
        "payload": {"description": f"Bytes, not necessarily a valid {topic.model.__name__}"},
    }


def _key(topic: Topic[Any], schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The binding with the schema of keys: that of the field that is the key, as text."""
    field = _resolved(schema["properties"].get(topic.key_field, {}), schemas)
    key = {name: value for name, value in field.items() if name in {"type", "minLength", "maxLength", "pattern"}}
    return {"bindings": {"kafka": {"key": _NUMBER if key.get("type") == "integer" else key or _TEXT, **_KAFKA}}}


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, with a reference resolved: bindings must not contain references."""
    return schemas[schema["$ref"].removeprefix(_SCHEMAS)] if "$ref" in schema else schema


def _operations(hosted: Iterable[ServiceDefinition], channels: Mapping[str, Any]) -> dict[str, Any]:
    operations: dict[str, Any] = {}
    for service in (h.service for h in hosted):
        dead_letters = [topic.dead_letters for topic in service.topics]
        sent = [*(topic.name for topic in service.outputs), *dead_letters]
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

"""Recognises, by their bytes, keys and values that other producers encode differently, and names the remedy."""

import json
from collections.abc import Callable
from typing import Any

from runtime.model.records import Record
from schemas.topics import Topic

_REGISTRY_HEADER = 5
"""Bytes before a value that was written with a schema registry: a zero byte and the schema's id."""

_MAX_PARSED_BYTES = 64 * 1024
"""Bytes; larger values are not parsed to find an envelope: parsing would hold up the event loop."""

_MAX_CAUSE = 700
"""Characters of a cause: the header of the dead letter also has to hold the remedy."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xff\x06\x00\x00sNaPpY": "snappy",
    b"\x82SNAPPY\x00": "snappy",
}
_PLAIN_KEYS = "key.converter=org.apache.kafka.connect.storage.StringConverter"
_BINARY_KEY_BYTES = (4, 8)
"""Sizes of keys written by Kafka's IntegerSerializer and LongSerializer."""


def with_remedy(cause: str, remedy: str) -> str:
    """An error text of cause and remedy."""
    return f"{cause if len(cause) <= _MAX_CAUSE else cause[:_MAX_CAUSE] + '…'}; {remedy}"


def remedy_for_value(value: bytes, topic: Topic[Any]) -> str:
    """The remedy for a value that is not a message of the topic."""
    return (
        _of_bytes(value, "value") or _of_json(value) or f"write the JSON that `orders asyncapi` shows for {topic.name}"
    )


def remedy_for_key(record: Record, right: str, topic: Topic[Any]) -> str:
    """The remedy for a key that is not `right`, the one that follows from the value."""
    key = record.key
    field = topic.key_field
    rule = f"the key of {topic.name} is " + (f"the value's {field}" if field else "what `orders topics` shows")
    if key is None:
        return f"{rule}, as UTF-8 text"
    if len(key) in _BINARY_KEY_BYTES and str(int.from_bytes(key, "big", signed=True)) == right:
        return "the key is a binary integer: write its digits as text (StringSerializer)"
    if (found := _of_bytes(key, "key")) is not None:
        return found
    parsed = _parsed(key)
    if isinstance(parsed, dict) and parsed.keys() == {"schema", "payload"}:
        return f"the key is in the envelope of Kafka Connect: {_PLAIN_KEYS}"
    if isinstance(parsed, str) and parsed == right:
        return f"the key is a JSON string: write it without quotes (Kafka Connect: {_PLAIN_KEYS})"
    if isinstance(parsed, dict):
        return f"the key is a JSON object: {rule}, as UTF-8 text"
    return rule


def _of_bytes(raw: bytes, what: str) -> str | None:
    if not raw:
        return f"the {what} is empty" + (": a tombstone has no value at all (null)" if what == "value" else "")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(raw) % 2 == 0 and _is_utf16(raw)):
        return f"the {what} is UTF-16: write UTF-8"
    if raw[0] == 0 and len(raw) >= _REGISTRY_HEADER:
        schema = int.from_bytes(raw[1:_REGISTRY_HEADER], "big")
        plain = "JSON" if what == "value" else "text"
        return (
            f"the {what} starts with a schema registry's magic byte and schema id {schema}: "
            f"write plain {plain}, without the registry's serializer"
        )
    if raw.startswith(b"\xef\xbb\xbf"):
        return f"the {what} starts with a byte order mark (BOM): write UTF-8 without it"
    for magic, codec in _COMPRESSED.items():
        if raw.startswith(magic):
            return (
                f"the {what} was compressed with {codec} by the application: let the producer do so (compression.type)"
            )
    if raw.startswith(b"Obj\x01"):
        return f"the {what} is an Avro file: write JSON"
    return None


def _is_utf16(raw: bytes) -> bool:
    """Whether every other byte at the beginning is zero, as in UTF-16 of ASCII text."""
    head = raw[:16]
    return any(head[:2]) and not (any(head[::2]) and any(head[1::2]))


def _of_json(value: bytes) -> str | None:
    if value.lstrip()[:1] == b'"':
        return "the value is JSON within a JSON string: encode it once (Kafka Connect: value.converter=StringConverter)"
    parsed = _parsed(value)
    if isinstance(parsed, dict) and parsed.keys() == {"schema", "payload"}:
        return "the value is in the envelope of Kafka Connect: value.converter.schemas.enable=false"
    return None


def _parsed(raw: bytes) -> Any:
    if len(raw) > _MAX_PARSED_BYTES:
        return None
    parse: Callable[[bytes], Any] = json.loads
    try:
        return parse(raw)
    except (ValueError, RecursionError):
        return None

"""Two requests of the Kafka protocol in versions that aiokafka lacks (kafka.apache.org/protocol).

OffsetFetch v7 can wait for stable offsets (KIP-447); v5 is for Azure Event Hubs. Metadata v10 has topic ids (KIP-516).
Relies on aiokafka's classes for requests, responses and schemas.
"""

from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

_TEXT = CompactString("utf-8")
_STRING = String("utf-8")
_TAGS = ("tags", TaggedFields)


class Uuid(AbstractType[bytes]):
    """A UUID of the protocol, as its sixteen bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class OffsetFetchResponse(Response):
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _TEXT),
                        ("error_code", Int16),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("error_code", Int16),
        _TAGS,
    )


class OffsetFetchResponseV5(Response):
    API_KEY = 9
    API_VERSION = 5
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("name", _STRING),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", _STRING),
                        ("error_code", Int16),
                    ),
                ),
            ),
        ),
        ("error_code", Int16),
    )


class OffsetFetchStructV5(RequestStruct):
    API_KEY = 9
    API_VERSION = 5
    RESPONSE_TYPE = OffsetFetchResponseV5
    SCHEMA = Schema(("group_id", _STRING), ("topics", Array(("name", _STRING), ("partitions", Array(Int32)))))


class OffsetFetchStruct(RequestStruct):
    API_KEY = 9
    API_VERSION = 7
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = OffsetFetchResponse
    SCHEMA = Schema(
        ("group_id", _TEXT),
        ("topics", CompactArray(("name", _TEXT), ("partitions", CompactArray(Int32)), _TAGS)),
        ("require_stable", Boolean),
        _TAGS,
    )


class MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS)),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("authorized_operations", Int32),
                _TAGS,
            ),
        ),
        ("authorized_operations", Int32),
        _TAGS,
    )


class MetadataStruct(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Uuid), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        _TAGS,
    )


class Metadata(Request[MetadataStruct]):
    API_KEY = 3

    def __init__(self, *fields: Any) -> None:
        self._fields = fields

    def build(self, request_struct_class: type[MetadataStruct]) -> MetadataStruct:
        return request_struct_class(*self._fields)


class OffsetFetch(Request[OffsetFetchStructV5 | OffsetFetchStruct]):
    """Brokers without v7 have no transactions for us, so all their offsets are stable: v5 asks them."""

    API_KEY = 9

    def __init__(self, group: str, topics: list[Any], require_stable: bool, tags: dict[int, bytes]) -> None:
        self._fields = (group, topics, require_stable, tags)

    def build(
        self, request_struct_class: type[OffsetFetchStructV5 | OffsetFetchStruct]
    ) -> OffsetFetchStructV5 | OffsetFetchStruct:
        group, topics, *_ = self._fields
        if request_struct_class is OffsetFetchStructV5:
            return OffsetFetchStructV5(group, [(name, numbers) for name, numbers, _ in topics])
        return OffsetFetchStruct(*self._fields)

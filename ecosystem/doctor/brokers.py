"""Checks of the brokers: whether they are reached, what they know, transactions, and their settings."""

from collections.abc import Mapping

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ApiVersionRequest

from ecosystem.doctor.finding import Finding, ok, problem, warning
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.rejections import find_rejection
from runtime.kafka.transactions import why_no_transactions

_CLUSTER = 3
"""Brokers from which on one replica is less than the cluster can give."""

_NEEDED = {1: (4, "Fetch"), 3: (5, "Metadata"), 9: (5, "OffsetFetch"), 22: (0, "InitProducerId")}
"""By request: the version that a worker needs at least."""
_NEEDED_EXACTLY_ONCE = {9: (7, "OffsetFetch"), 28: (3, "TxnOffsetCommit")}
_LOG_IDS = 10
"""Version of Metadata from which on topics have ids."""


async def check_broker(settings: Settings) -> list[Finding]:
    """Whether the brokers are reached at the addresses that they advertise, and know the requests of a worker."""
    if rejection := await find_rejection(settings):
        return [problem("broker", rejection.reason, "No worker and no command reaches Kafka.", rejection.reason)]
    client = clients.bare_client(settings)
    try:
        try:
            await client.bootstrap()
        except KafkaError:
            return [
                problem(
                    "broker",
                    f"nobody answers at {settings.kafka_bootstrap_servers}",
                    "No worker and no command reaches Kafka.",
                    "start the brokers, or set KAFKA_BOOTSTRAP_SERVERS",
                )
            ]
        return await _versions(client, settings)
    finally:
        await client.close()


async def _versions(client: AIOKafkaClient, settings: Settings) -> list[Finding]:
    answer = await client.send(client.get_random_node(), ApiVersionRequest())
    highest = {key: high for key, _, high in answer.api_versions}
    found = missing_requests(highest, exactly_once=not settings.at_least_once and not settings.event_hubs)
    brokers = len(client.cluster.brokers())
    if (entity := settings.event_hub_entity) is not None:
        found.append(
            problem(
                "broker",
                f"EVENTHUB_CONNECTIONSTRING has EntityPath={entity}",
                "Its key is good for this topic only, and a worker needs many.",
                "use a connection string of the namespace, without EntityPath",
            )
        )
    if settings.replication_factor > brokers:
        found.append(
            problem(
                "broker",
                f"REPLICATION_FACTOR is {settings.replication_factor}, and the cluster has {brokers} broker(s)",
                "A worker cannot create missing topics.",
                f"set REPLICATION_FACTOR={brokers}, or start more brokers",
            )
        )
    elif settings.replication_factor == 1 and brokers >= _CLUSTER and not settings.event_hubs:
        found.append(
            warning(
                "broker",
                f"REPLICATION_FACTOR is 1 on a cluster of {brokers} brokers",
                "The loss of one broker's disk loses orders.",
                f"set REPLICATION_FACTOR={_CLUSTER} before topics are created",
            )
        )
    return found or [ok("broker", f"{brokers} broker(s) at {settings.kafka_bootstrap_servers}")]


def missing_requests(highest: Mapping[int, int], *, exactly_once: bool) -> list[Finding]:
    """Names the requests that a worker needs and the broker does not know. `highest`: version by request."""
    needed = [*_NEEDED.items(), *(_NEEDED_EXACTLY_ONCE.items() if exactly_once else ())]
    lacking = [f"{name} v{version}" for key, (version, name) in needed if highest.get(key, -1) < version]
    if lacking:
        return [
            problem(
                "broker",
                f"the broker does not know {', '.join(lacking)}",
                "A worker needs Kafka 2.5 or later, or Azure Event Hubs.",
                "upgrade the brokers",
            )
        ]
    if highest[3] < _LOG_IDS:
        return [
            warning(
                "broker",
                "the broker gives topics no ids",
                "A topic that is deleted and created anew is not told from the one before.",
                "upgrade the brokers to Kafka 2.8 or later; on Event Hubs, do not delete topics",
            )
        ]
    return []


async def check_transactions(settings: Settings) -> list[Finding]:
    """Whether the brokers have transactions, which exactly once needs."""
    if settings.at_least_once:
        return [ok("transactions", "not needed: PROCESSING_GUARANTEE=at_least_once")]
    why = await why_no_transactions(settings)
    if why is None:
        return [ok("transactions", "a coordinator answers")]
    told = "processing_guarantee" in settings.model_fields_set
    if settings.event_hubs and not told:
        return [
            warning(
                "transactions",
                f"this tier has none ({why})",
                "Workers process at least once: a crash can repeat records that other programs read.",
                "set PROCESSING_GUARANTEE=at_least_once to acknowledge, or use the Premium tier",
            )
        ]
    return [
        problem(
            "transactions",
            f"the brokers refuse them ({why})",
            "A worker that is exactly once does not start.",
            f"allow WRITE and DESCRIBE on transactional ids that begin with {settings.topic_prefix!r}, or set "
            "PROCESSING_GUARANTEE=at_least_once",
        )
    ]


async def check_broker_settings(settings: Settings) -> list[Finding]:
    """Whether settings of the brokers contradict those of the workers."""
    async with clients.admin(settings) as admin:
        [broker, *_] = (await admin.describe_cluster())["brokers"]
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, str(broker["node_id"]))])
    [(code, message, _, _, entries)] = response.resources
    if code:
        return [
            warning(
                "broker settings",
                f"cannot be read: {message}",
                "They are not checked.",
                "allow DESCRIBE_CONFIGS on the cluster",
            )
        ]
    return contradictions({entry[0]: entry[1] for entry in entries}, settings) or [
        ok("broker settings", "agree with those of the workers")
    ]


def contradictions(found: Mapping[str, str | None], settings: Settings) -> list[Finding]:
    """Compares settings of a broker with those of the workers."""

    def milliseconds(name: str, default: float) -> float:
        return float(found.get(name) or default)

    result = []
    if settings.transaction_timeout_s * 1000 > milliseconds("transaction.max.timeout.ms", float("inf")):
        result.append(
            problem(
                "broker settings",
                f"transaction.max.timeout.ms is {found['transaction.max.timeout.ms']}, TRANSACTION_TIMEOUT_S is "
                f"{settings.transaction_timeout_s:g}",
                "A worker cannot start.",
                "lower TRANSACTION_TIMEOUT_S, or raise transaction.max.timeout.ms",
            )
        )
    session_ms = settings.session_timeout_s * 1000
    low, high = milliseconds("group.min.session.timeout.ms", 0), milliseconds("group.max.session.timeout.ms", 1e12)
    if not low <= session_ms <= high:
        result.append(
            problem(
                "broker settings",
                f"SESSION_TIMEOUT_S is {settings.session_timeout_s:g}, the broker allows {low / 1000:g} to "
                f"{high / 1000:g} s",
                "A worker cannot join its group.",
                "set SESSION_TIMEOUT_S within this range, or group.min.session.timeout.ms of the brokers",
            )
        )
    if found.get("auto.create.topics.enable") == "true":
        result.append(
            warning(
                "broker settings",
                "auto.create.topics.enable is true",
                "A reader that is started too early creates topics with wrong partitions and retention.",
                "set auto.create.topics.enable=false",
            )
        )
    if 0 < float(found.get("offsets.retention.minutes") or 0) < 7 * 24 * 60:
        result.append(
            warning(
                "broker settings",
                f"offsets.retention.minutes is {found['offsets.retention.minutes']}, less than a week",
                "A group that stands still for longer reads everything again.",
                "set offsets.retention.minutes to a year, 525600",
            )
        )
    return result

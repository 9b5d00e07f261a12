"""Checks of topics: existence, partitions, replicas, and settings against catalogue and topology."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ecosystem import services
from ecosystem.doctor.finding import Finding, ok, problem, warning
from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topic_configs import UnkeptSetting, unkept_settings
from runtime.kafka.topics import TopicConfigs, topics_of
from schemas.topics import DEAD_LETTERS

_SHOWN = 5
"""Names in one finding at most."""


def wanted_topics(settings: Settings) -> TopicConfigs:
    """The topics of all services, with the settings that workers create them with."""
    return topics_of(services.topology(settings))


async def check_topics(settings: Settings) -> list[Finding]:
    """Whether topics exist, have the same partitions, and enough replicas in sync."""
    names = KafkaNames(settings.topic_prefix)
    wanted = list(wanted_topics(settings))
    async with clients.admin(settings) as admin:
        existing = set(await admin.list_topics())
        present = [topic for topic in wanted if names.topic(topic) in existing]
        described = await admin.describe_topics([names.topic(topic) for topic in present]) if present else []
    return judge_topics(settings, wanted, present, described)


def judge_topics(
    settings: Settings, wanted: Sequence[str], present: Sequence[str], described: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    """Judges what the broker says about topics. `described`: of the present ones, as aiokafka's admin gives it."""
    prefix = f" with the prefix {settings.topic_prefix!r}" if settings.topic_prefix else ""
    if not present:
        return [
            warning(
                "topics",
                f"there are none{prefix}",
                "No worker has run here, or TOPIC_PREFIX is that of another deployment.",
                "start a worker, which creates them, or set TOPIC_PREFIX",
            )
        ]
    found = []
    if missing := [topic for topic in wanted if topic not in present]:
        found.append(
            warning(
                "topics",
                f"{len(missing)} of {len(wanted)} are missing: {_some(missing)}",
                "Their services have not run here yet, or somebody has deleted them.",
                "start a worker with these services: it creates them",
            )
        )
    found += _partitions(settings, {topic["topic"]: len(topic["partitions"]) for topic in described})
    leaderless = [f"{t['topic']}[{p['partition']}]" for t in described for p in t["partitions"] if p["leader"] < 0]
    if leaderless:
        found.append(
            problem(
                "topics",
                f"{len(leaderless)} partitions have no leader: {_some(leaderless)}",
                "Nobody can read or write them.",
                "start the brokers that have their replicas",
            )
        )
    behind = [
        f"{t['topic']}[{p['partition']}]"
        for t in described
        for p in t["partitions"]
        if len(p["isr"]) < len(p["replicas"])
    ]
    if behind:
        found.append(
            warning(
                "topics",
                f"{len(behind)} partitions have replicas that are not in sync: {_some(behind)}",
                "The loss of one more broker may stop writes, or lose records.",
                "start the missing broker, and see its log",
            )
        )
    return found or [ok("topics", f"{len(present)} topics of {settings.partitions} partitions, all replicas in sync")]


def _partitions(settings: Settings, counts: Mapping[str, int]) -> list[Finding]:
    """Judges the numbers of partitions by topic."""
    others = {t: n for t, n in counts.items() if not t.endswith(DEAD_LETTERS) and n != settings.partitions}
    common = Counter(counts.values()).most_common(1)[0][0]
    if common == settings.partitions:
        return [_other_partitions(settings, topic, count, counts) for topic, count in others.items()]
    return [
        problem(
            "topics",
            f"PARTITIONS is {settings.partitions}, {len(others)} topics have others: "
            + _some([f"{topic} {count}" for topic, count in sorted(others.items())]),
            "No worker starts: keys would belong in other partitions.",
            f"set PARTITIONS={common} for all workers and commands",
        )
    ]


def _other_partitions(settings: Settings, topic: str, count: int, counts: Mapping[str, int]) -> Finding:
    if count > settings.partitions == counts.get(topic + DEAD_LETTERS):
        return warning(
            "topics",
            f"{topic} has grown to {count} partitions, PARTITIONS is {settings.partitions}",
            "Records in the new partitions are dead-lettered as misplaced.",
            f"let its producers place records by murmur2 of the key modulo {settings.partitions}",
        )
    return problem(
        "topics",
        f"{topic} has {count} partitions, the others have {settings.partitions}",
        "No worker that uses it starts: topics must be co-partitioned.",
        f"copy what is in it, then kafka-topics.sh --delete --topic {topic}, and start a worker, which creates it",
    )


async def check_topic_settings(settings: Settings) -> list[Finding]:
    """Whether cleanup policy, retention and sizes are those of catalogue and topology."""
    differences = await unkept_settings(settings, wanted_topics(settings))
    return [judge_setting(settings, found) for found in differences] or [ok("topic settings", "as in the catalogue")]


def judge_setting(settings: Settings, found: UnkeptSetting) -> Finding:
    """Judges a setting of a topic that is not as wanted."""
    what = f"{found.topic}: {found.setting} is {found.found}, not {found.wanted}"
    remedy = (
        "on Event Hubs, raise the tier"
        if settings.event_hubs
        else f"kafka-configs.sh --bootstrap-server {settings.kafka_bootstrap_servers} --alter --entity-type topics "
        f"--entity-name {found.topic} --add-config {found.setting}={found.wanted}"
    )
    if found.setting == "cleanup.policy":
        kept = "compact" in found.wanted
        why = (
            "Rows of state and reference data are deleted by age: a restore is incomplete."
            if kept
            else "Only the last record of each key is kept: orders and their audit lose records."
        )
        return problem("topic settings", what, why, remedy)
    if found.setting == "retention.ms" and _shorter(found.found, found.wanted):
        return problem("topic settings", what, "Records are deleted before all services may have read them.", remedy)
    return warning("topic settings", what, "It was changed since a worker created the topic.", remedy)


def _shorter(found: str | None, wanted: str) -> bool:
    """Whether a retention in milliseconds is shorter; -1 is for ever."""
    if found is None or int(found) == -1:
        return False
    return int(wanted) == -1 or int(found) < int(wanted)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

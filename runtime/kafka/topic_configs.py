"""Compares the configuration of topics with what the catalogue and the topology want."""

from dataclasses import dataclass

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from runtime.common.settings import Settings
from runtime.kafka import clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.topics import TopicConfigs

_TOPICS_PER_REQUEST = 50


@dataclass(frozen=True, slots=True)
class UnkeptSetting:
    """A setting of a topic that is not as wanted.

    Arguments:
        topic: physical name.
        setting: name of the setting, such as `cleanup.policy`.
        wanted: its value in catalogue or topology.
        found: its value at the broker; `None` if the broker does not know the setting.
    """

    topic: str
    setting: str
    wanted: str
    found: str | None


async def unkept_settings(settings: Settings, wanted: TopicConfigs) -> list[UnkeptSetting]:
    """Returns the settings of existing topics that are not as wanted, topic by topic."""
    names = KafkaNames(settings.topic_prefix)
    result: list[UnkeptSetting] = []
    async with clients.admin(settings) as admin:
        existing = set(await admin.list_topics())
        asked = [name for name in wanted if names.topic(name) in existing]
        for start in range(0, len(asked), _TOPICS_PER_REQUEST):
            some = asked[start : start + _TOPICS_PER_REQUEST]
            resources = [ConfigResource(ConfigResourceType.TOPIC, names.topic(name)) for name in some]
            found: dict[str, dict[str, str | None]] = {}
            for response in await admin.describe_configs(resources):
                for code, message, _, topic, entries in response.resources:
                    if code:
                        raise for_code(code)(f"describing topic {topic}: {message}")
                    found[topic] = {entry[0]: entry[1] for entry in entries}
            for name in some:
                topic = names.topic(name)
                result += [
                    UnkeptSetting(topic, setting, value, found.get(topic, {}).get(setting))
                    for setting, value in wanted[name].items()
                    if found.get(topic, {}).get(setting) != value
                ]
    return result

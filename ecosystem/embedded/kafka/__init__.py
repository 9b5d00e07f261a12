"""An embedded Apache Kafka: the real broker, without Docker and without an installed Java."""

from ecosystem.embedded.kafka.cluster import Cluster
from ecosystem.embedded.kafka.errors import KafkaError

__all__ = ["Cluster", "KafkaError"]

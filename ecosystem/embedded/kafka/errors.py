"""What can go wrong with the project's own Kafka."""


class KafkaError(Exception):
    """Kafka could not be fetched or started. The text is meant for whoever typed the command."""

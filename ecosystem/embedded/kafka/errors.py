"""Errors of the embedded Kafka."""


class KafkaError(Exception):
    """Kafka could not be fetched or started. The text is meant for the user."""

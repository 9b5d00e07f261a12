"""Adapters to Kafka: clients, topics, the wire protocol, and decoding of fetched record batches."""

"""Kafka, PostgreSQL and a mail server on this machine, without Docker; their processes, ports and locks."""

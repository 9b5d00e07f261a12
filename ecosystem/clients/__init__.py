"""Clients of the services and of Kafka, for commands, audit and load generator."""

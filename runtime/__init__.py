"""The runtime that every service runs on. It polls, processes, commits and applies.

Packages from the bottom up:

errors          errors that cross packages, as one tree
common          clock, backoff, settings, partitioning, logging
model           what services declare, and what the loop handles: records, commands, dead letters
metrics         Prometheus metrics
data_loss       records that the broker lost before they were read
kafka           clients, protocol, topics
database        PostgreSQL: pool, migrations, outbox
state           state stores, restore, TTL tables
side_effects    e-mails and database rows after the commit: retries, circuit breakers
hosting         the interface between a worker and the HTTP handlers of its services
loop            the processing loop, rebalances, timers, standby replicas
group           placement of partitions, reachability, offset migration
faust_adapter   Faust app, transport, assignor
http            HTTP server, routing to key owners, OpenAPI, AsyncAPI
mail            e-mails by SMTP
health          stall detection
testing         services in memory, with virtual time
validator       the definition of a validator: a rule on orders becomes a service
worker          a worker assembled, and its process

`tests/unit/test_imports.py` holds that imports point upwards in this list.
"""

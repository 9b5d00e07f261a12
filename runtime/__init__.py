"""What every service stands on: one loop that polls, processes, commits and applies.

model           what services declare and what the loop handles: services, records, commands, dead letters
common          clock, backoff, settings, partitioning, fail points
errors          the errors that cross packages, as one tree
state           tables: RocksDB stores, restore from changelogs, TTL tables
kafka           clients, protocol, topics: everything that talks to a broker
database        PostgreSQL: pool, migrations, outbox
loop            the processing loop, rebalances, timers, side effects, standby replicas; what the simulation runs
group           which services share a consumer group, who owns what, offsets that move between groups
hosting         what a worker offers the HTTP side of its services
faust_adapter   the Faust app: supervision and assignor protocol
http            the HTTP server, routing to key owners, OpenAPI and AsyncAPI
mail            e-mails by SMTP
health          stall detection
testing         services wired together in memory, with virtual time
worker          a worker put together, and its process

Imports point one way, from the bottom of this list upwards; `tests/unit/test_imports.py` holds that.
"""

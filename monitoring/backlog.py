"""Dashboard: what waits, what failed, rebalances."""

from monitoring.expressions import gauge, quantiles, rate, total
from monitoring.grafana_model import Dashboard, Query, Row, graph

BACKLOG = Dashboard(
    "faust-orders-backlog",
    "Faust Orders: backlog",
    "What waits: in topics, standby replicas, side effects, outboxes and sinks; and what failed.",
    (
        Row(
            "Topics",
            (
                graph(
                    "Age of the oldest record",
                    Query(gauge("partition_lag_seconds", "topic", "max"), "{{topic}}"),
                    unit="s",
                ),
                graph("Records that wait", Query(gauge("partition_lag_records", "topic"), "{{topic}}")),
                graph(
                    "Position and last stable offset",
                    Query(gauge("partition_position", "topic"), "position {{topic}}"),
                    Query(gauge("partition_last_stable_offset", "topic"), "end {{topic}}"),
                    description="Of all partitions. A position that stands still while the end moves is a stall.",
                ),
            ),
        ),
        Row(
            "Side effects",
            (
                graph("Waiting", Query(gauge("side_effects_waiting", "service, effect"), "{{service}} {{effect}}")),
                graph(
                    "Oldest that waits",
                    Query(
                        gauge("side_effects_oldest_waiting_seconds", "service, effect", "max"), "{{service}} {{effect}}"
                    ),
                    unit="s",
                ),
                graph("Running", Query(gauge("side_effects_running", "service, effect"), "{{service}} {{effect}}")),
                graph(
                    "Failed attempts",
                    Query(rate("side_effects_failed_attempts_total", "service, effect"), "{{service}} {{effect}}"),
                    unit="ops",
                ),
                graph(
                    "Open circuit breakers",
                    Query(gauge("side_effects_open_circuits", "service, effect"), "{{service}} {{effect}}"),
                    description="Destinations, such as a mail domain or a webhook, that get one attempt at a time.",
                ),
                graph(
                    "Given up",
                    Query(rate("side_effects_dead_lettered_total", "service, effect"), "{{service}} {{effect}}"),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "Outboxes and sinks",
            (
                graph("Messages in an outbox", Query(gauge("outbox_waiting", "service", "max"), "{{service}}")),
                graph(
                    "Oldest message in an outbox",
                    Query(gauge("outbox_oldest_waiting_seconds", "service", "max"), "{{service}}"),
                    unit="s",
                ),
                graph(
                    "Records that a sink has not stored",
                    Query(gauge("sink_lag_records", "service, topic"), "{{service}} {{topic}}"),
                ),
                graph(
                    "Oldest record that a sink has not stored",
                    Query(gauge("sink_lag_seconds", "service, topic", "max"), "{{service}} {{topic}}"),
                    unit="s",
                ),
                graph("Failures of a sink", Query(rate("sink_failures_total", "service"), "{{service}}"), unit="ops"),
            ),
        ),
        Row(
            "Lost, rejected, dead-lettered",
            (
                graph(
                    "Dead letters",
                    Query(rate("dead_letters_total", "topic", "", "1h", "increase"), "{{topic}}"),
                    description="In the hour before.",
                ),
                graph(
                    "Lost records",
                    Query(rate("lost_records_total", "topic", "", "1h", "increase"), "{{topic}}"),
                    description="In the hour before.",
                ),
                graph(
                    "Rejected by a database, too large for a topic",
                    Query(rate("sink_rejected_records_total", "service", "", "1h", "increase"), "rejected {{service}}"),
                    Query(rate("outbox_dead_letters_total", "service", "", "1h", "increase"), "too large {{service}}"),
                    description="In the hour before.",
                ),
            ),
        ),
        Row(
            "Rebalances and standby replicas",
            (
                graph(
                    "Rebalances",
                    Query(rate("rebalances_total", "instance", "", "1h", "increase"), "{{instance}}"),
                    description="In the hour before.",
                ),
                graph(
                    "Partitions owned and followed",
                    Query(gauge("owned_partitions", "instance"), "owned {{instance}}"),
                    Query(gauge("standby_partitions", "instance"), "standby {{instance}}"),
                ),
                graph("Standby replicas behind", Query(gauge("standby_lag_records", "instance"), "{{instance}}")),
                graph("Time to restore partitions", *quantiles("restore_seconds"), unit="s"),
                graph(
                    "Changelog records restored and followed",
                    Query(total("restored_records_total"), "restored"),
                    Query(total("standby_records_total"), "followed"),
                    unit="ops",
                ),
                graph("Failed restores", Query(rate("restore_failures_total", "instance"), "{{instance}}"), unit="ops"),
            ),
        ),
    ),
)

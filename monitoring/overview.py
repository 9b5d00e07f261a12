"""Dashboard: orders, requests, and what is wrong."""

from monitoring.expressions import (
    DECIDED,
    DECISIONS,
    EVENTS,
    HTTP,
    NO_PROBES,
    OF_ORDERS,
    STAGES,
    P,
    gauge,
    quantile,
    quantiles,
    rate,
    total,
)
from monitoring.grafana_model import WORKERS, Dashboard, Query, Row, graph, stat

OVERVIEW = Dashboard(
    "faust-orders-overview",
    "Faust Orders: overview",
    "Whether orders are decided, how fast, and what is wrong. Start here.",
    (
        Row(
            "Now",
            (
                stat("Orders per second", total(EVENTS, OF_ORDERS), unit="ops"),
                stat("Decided per second", total(EVENTS, DECIDED), unit="ops"),
                stat("Decided within (p99)", quantile(0.99, STAGES, "", DECISIONS), unit="s", alarm=5),
                stat("Oldest unprocessed record", f"max({P}partition_lag_seconds{{{WORKERS}}})", unit="s", alarm=60),
                stat(
                    "Workers not ready",
                    f"count({P}worker_ready{{{WORKERS}}}) - sum({P}worker_ready{{{WORKERS}}})",
                    alarm=1,
                ),
                stat("Dead letters in an hour", total("dead_letters_total", "", "1h", "increase"), alarm=1),
            ),
        ),
        Row(
            "Orders",
            (
                graph(
                    "Orders by state",
                    Query(
                        rate(EVENTS, "event", 'service="orders", event=~"created|validated|failed|shipped|cancelled"'),
                        "{{event}}",
                    ),
                    unit="ops",
                    description="Orders that begin to wait for verdicts, and changes of state.",
                ),
                graph("Time from POST to decision", *quantiles(STAGES, DECISIONS), unit="s"),
                graph(
                    "Orders that miss their deadline",
                    Query(total(EVENTS, 'service="orders", event="deadline missed"'), "per second"),
                    unit="ops",
                    description="Orders that fail because a verdict is missing.",
                ),
            ),
        ),
        Row(
            "Requests",
            (
                graph(
                    "Requests by status", Query(rate(f"{HTTP}_count", "status", NO_PROBES), "{{status}}"), unit="ops"
                ),
                graph("POST /v1/orders", *quantiles(HTTP, 'method="POST", route="/v1/orders"'), unit="s"),
                graph(
                    "In flight and waiting",
                    Query(gauge("http_requests_in_flight", "instance"), "in flight {{instance}}"),
                    Query(gauge("waiting_clients", "instance"), "waiting {{instance}}"),
                    description="Waiting clients wait for an order to change.",
                ),
            ),
        ),
        Row(
            "What is wrong",
            (
                graph(
                    "Firing alerts",
                    Query('count by (alertname, severity) (ALERTS{alertstate="firing"}) or vector(0)', "{{alertname}}"),
                ),
                graph(
                    "Oldest side effect that waits",
                    Query(
                        gauge("side_effects_oldest_waiting_seconds", "service, effect", "max"), "{{service}} {{effect}}"
                    ),
                    unit="s",
                ),
                graph(
                    "Oldest message in an outbox",
                    Query(gauge("outbox_oldest_waiting_seconds", "service", "max"), "{{service}}"),
                    unit="s",
                ),
            ),
        ),
    ),
)

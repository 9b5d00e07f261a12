"""Dashboard: processes, HTTP, state, databases."""

from monitoring.expressions import HTTP, RATE, P, gauge, quantile, rate
from monitoring.grafana_model import WORKERS, Dashboard, Query, Row, graph, table

RUNTIME = Dashboard(
    "faust-orders-runtime",
    "Faust Orders: runtime",
    "The processes: version, CPU, memory, state, databases, connections to Kafka.",
    (
        Row(
            "Workers",
            (
                table("Versions", f"{P}worker_info{{{WORKERS}}}"),
                graph("Ready", Query(gauge("worker_ready", "instance"), "{{instance}}")),
                graph("Kafka reachable", Query(gauge("broker_reachable", "instance"), "{{instance}}")),
                graph(
                    "Stalled",
                    Query(gauge("stalled", "instance"), "{{instance}}"),
                    description="Partitions and components without progress.",
                ),
                graph(
                    "Running since",
                    Query(f"time() - process_start_time_seconds{{{WORKERS}}}", "{{instance}}"),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Process",
            (
                graph(
                    "CPU",
                    Query(f"rate(process_cpu_seconds_total{{{WORKERS}}}[{RATE}])", "{{instance}}"),
                    unit="percentunit",
                    description="1 is one core: a worker uses one at most, besides RocksDB.",
                ),
                graph("Memory", Query(f"process_resident_memory_bytes{{{WORKERS}}}", "{{instance}}"), unit="bytes"),
                graph(
                    "Memory blocks of Python",
                    Query(gauge("python_memory_blocks", "instance"), "{{instance}}"),
                    description="A leak shows here before it shows in memory.",
                ),
                graph(
                    "Open files",
                    Query(f"process_open_fds{{{WORKERS}}}", "open {{instance}}"),
                    Query(f"process_max_fds{{{WORKERS}}}", "limit {{instance}}"),
                ),
                graph("Tasks of the event loop", Query(gauge("event_loop_tasks", "instance"), "{{instance}}")),
                graph(
                    "Garbage collections",
                    Query(
                        f"sum by (instance, generation) (rate(python_gc_collections_total{{{WORKERS}}}[{RATE}]))",
                        "{{instance}} generation {{generation}}",
                    ),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "HTTP",
            (
                graph(
                    "Requests by route",
                    Query(rate(f"{HTTP}_count", "route, method"), "{{method}} {{route}}"),
                    unit="ops",
                ),
                graph(
                    "Time of a request (p99)",
                    Query(quantile(0.99, HTTP, "route"), "{{route}}"),
                    unit="s",
                    description="Clients may wait for an order: that is part of the time.",
                ),
                graph(
                    "In flight and the limit",
                    Query(gauge("http_requests_in_flight", "instance"), "in flight {{instance}}"),
                    Query(gauge("http_requests_limit", "instance"), "limit {{instance}}"),
                ),
                graph("Commands that wait for a batch", Query(gauge("waiting_commands", "instance"), "{{instance}}")),
            ),
        ),
        Row(
            "State",
            (
                graph(
                    "Rows by table",
                    Query(gauge("state_rows", "table"), "{{table}}"),
                    description="Standby replicas included; an estimate.",
                ),
                graph("Size by table", Query(gauge("state_size_bytes", "table"), "{{table}}"), unit="bytes"),
                graph(
                    "Disk of STATE_DIR",
                    Query(gauge("state_disk_free_bytes", "instance"), "free {{instance}}"),
                    Query(gauge("state_disk_size_bytes", "instance"), "size {{instance}}"),
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Databases",
            (
                graph("Available", Query(gauge("database_available", "service", "min"), "{{service}}")),
                graph(
                    "Connections",
                    Query(gauge("database_connections", "service, state"), "{{service}} {{state}}"),
                    Query(gauge("database_connections_limit", "service"), "{{service}} limit"),
                ),
                graph(
                    "Transactions that wait for a connection",
                    Query(gauge("database_transactions_waiting", "service"), "{{service}}"),
                ),
                graph(
                    "Transactions",
                    Query(rate("database_transaction_seconds_count", "service"), "{{service}}"),
                    unit="ops",
                ),
                graph(
                    "Time of a transaction (p99)",
                    Query(quantile(0.99, "database_transaction_seconds", "service"), "{{service}}"),
                    unit="s",
                ),
                graph(
                    "Transactions failed", Query(rate("database_failures_total", "service"), "{{service}}"), unit="ops"
                ),
            ),
        ),
    ),
)

"""Dashboard: times and rates of the stages of orders, verdicts, batches."""

from monitoring.expressions import EVENTS, STAGES, quantile, quantiles, rate, total
from monitoring.grafana_model import Dashboard, Query, Row, graph

STAGES_DASHBOARD = Dashboard(
    "faust-orders-stages",
    "Faust Orders: stages",
    "How long orders take to each stage, what the validators say, and what a batch costs.",
    (
        Row(
            "Stages of orders",
            (
                graph("Median time to a stage", Query(quantile(0.5, STAGES, "stage"), "{{stage}}"), unit="s"),
                graph("p99 time to a stage", Query(quantile(0.99, STAGES, "stage"), "{{stage}}"), unit="s"),
                graph("Orders that reach a stage", Query(rate(f"{STAGES}_count", "stage"), "{{stage}}"), unit="ops"),
            ),
        ),
        Row(
            "Verdicts",
            (
                graph("Passed", Query(rate(EVENTS, "service", 'event="passed"'), "{{service}}"), unit="ops"),
                graph(
                    "Failed",
                    Query(rate(EVENTS, "service", 'event="failed", service!="orders"'), "{{service}}"),
                    unit="ops",
                ),
                graph("Late verdicts", Query(total(EVENTS, 'event="late verdict"'), "late"), unit="ops"),
            ),
        ),
        Row(
            "Batches",
            (
                graph(
                    "Batches committed", Query(rate("batches_committed_total", "instance"), "{{instance}}"), unit="ops"
                ),
                graph("Records of a batch", *quantiles("batch_records")),
                graph("Time to process a batch", *quantiles("batch_process_seconds"), unit="s"),
                graph("Time to commit a batch", *quantiles("batch_commit_seconds"), unit="s"),
                graph(
                    "Steps of a commit (p99)",
                    Query(quantile(0.99, "commit_step_seconds", "step"), "{{step}}"),
                    unit="s",
                    description="Exactly once. The steps produce and offsets run at the same time.",
                ),
                graph(
                    "Requests and partitions of a commit",
                    Query(f"{total('commit_requests_total')} / {total('batches_committed_total')}", "requests"),
                    Query(f"{total('commit_partitions_total')} / {total('batches_committed_total')}", "partitions"),
                    description="Exactly once. A commit is four requests and one to each leader; more are retries.",
                ),
                graph(
                    "Records polled, messages processed and fused",
                    Query(total("records_polled_total"), "polled"),
                    Query(total("processed_total"), "processed"),
                    Query(total("fused_total"), "fused"),
                    unit="ops",
                    description="A fused message is processed in the batch that produced it: no broker round trip.",
                ),
                graph("Batches dropped", Query(rate("batches_dropped_total", "reason"), "{{reason}}"), unit="ops"),
            ),
        ),
        Row(
            "Side effects, outboxes, sinks",
            (
                graph(
                    "Side effects done",
                    Query(rate("side_effects_done_total", "service, effect"), "{{service}} {{effect}}"),
                    unit="ops",
                ),
                graph(
                    "Time in an outbox (p99)",
                    Query(quantile(0.99, "outbox_delay_seconds", "service"), "{{service}}"),
                    unit="s",
                ),
                graph(
                    "Messages relayed from an outbox",
                    Query(rate("outbox_published_total", "service"), "{{service}}"),
                    unit="ops",
                ),
                graph(
                    "Records stored by a sink", Query(rate("sink_records_total", "service"), "{{service}}"), unit="ops"
                ),
            ),
        ),
    ),
)

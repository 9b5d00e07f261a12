"""Expressions of PromQL over the metrics of the workers that are chosen at the top of a dashboard."""

from monitoring.grafana_model import WORKERS, Query

P = "faust_orders_"
RATE = "$__rate_interval"


def rate(metric: str, by: str, more: str = "", window: str = RATE, function: str = "rate") -> str:
    """Sum of the rates of a counter, by labels."""
    return f"sum by ({by}) ({function}({P}{metric}{{{WORKERS}{more and ', ' + more}}}[{window}]))"


def total(metric: str, more: str = "", window: str = RATE, function: str = "rate") -> str:
    """Sum of the rates of a counter, over everything."""
    return f"sum({function}({P}{metric}{{{WORKERS}{more and ', ' + more}}}[{window}]))"


def quantile(q: float, histogram: str, by: str = "", more: str = "") -> str:
    """A quantile of a histogram, by labels."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', labels, more)})"


def quantiles(histogram: str, more: str = "") -> tuple[Query, ...]:
    """Median, p90 and p99 of a histogram, over everything."""
    return tuple(Query(quantile(q, histogram, "", more), f"p{round(100 * q)}") for q in (0.5, 0.9, 0.99))


def gauge(metric: str, by: str, of: str = "sum") -> str:
    """A gauge by labels: summed, or the largest or smallest."""
    return f"{of} by ({by}) ({P}{metric}{{{WORKERS}}})"


DECIDED = 'service="orders", event=~"validated|failed"'
OF_ORDERS = 'service="orders", event="created"'
NO_PROBES = 'route!~"/(readyz|healthz|metrics)"'
DECISIONS = 'stage=~"posted to (validated|failed)"'
EVENTS = "service_events_total"
STAGES = "stage_duration_seconds"
HTTP = "http_request_duration_seconds"

"""Dashboard: orders, stock, payments, products."""

from monitoring.expressions import DECIDED, EVENTS, STAGES, quantile, rate, total
from monitoring.grafana_model import Dashboard, Query, Row, graph


def in_an_hour(service: str, events: str) -> Query:
    """Events of a service in the hour before."""
    return Query(rate(EVENTS, "event", f'service="{service}", event=~"{events}"', "1h", "increase"), "{{event}}")


BUSINESS = Dashboard(
    "faust-orders-business",
    "Faust Orders: business",
    "What happens to orders, stock, payments and products. Numbers are of the hour before.",
    (
        Row(
            "Orders",
            (
                graph("Orders by state", in_an_hour("orders", "created|validated|failed|shipped|cancelled")),
                graph(
                    "Share of orders that fail",
                    Query(
                        total(EVENTS, 'service="orders", event="failed"', "1h") + " / " + total(EVENTS, DECIDED, "1h"),
                        "failed",
                    ),
                    unit="percentunit",
                ),
                graph(
                    "Failed verdicts by check",
                    Query(
                        rate(EVENTS, "service", 'event="failed", service!="orders"', "1h", "increase"), "{{service}}"
                    ),
                ),
                graph(
                    "Time from POST to the end (median)",
                    Query(quantile(0.5, STAGES, "stage", 'stage=~"posted to (shipped|cancelled|failed)"'), "{{stage}}"),
                    unit="s",
                ),
                graph("Deadlines missed, late verdicts", in_an_hour("orders", "deadline missed|late verdict")),
            ),
        ),
        Row(
            "Stock, payments, e-mails",
            (
                graph("Reservations", in_an_hour("inventory", "reserved|released")),
                graph(
                    "Unpaid, paid otherwise",
                    in_an_hour("fulfilment", "unpaid order cancelled|payment in another currency|payment differs"),
                ),
                graph(
                    "E-mails and notices sent",
                    Query(
                        rate("side_effects_done_total", "service, effect", "", "1h", "increase"),
                        "{{service}} {{effect}}",
                    ),
                ),
                graph(
                    "E-mails that nobody gets",
                    in_an_hour("email", "unknown customer|unpaid order forgotten|payment without order forgotten"),
                ),
            ),
        ),
        Row(
            "Products and check-ins",
            (
                graph("Changes of products", in_an_hour("product-monitoring", "created|updated|withdrawn")),
                graph("Suspicious changes", in_an_hour("product-security", "price drop|many changes")),
                graph(
                    "Published by services with a database",
                    Query(rate("outbox_published_total", "service", "", "1h", "increase"), "{{service}}"),
                ),
            ),
        ),
    ),
)

"""Prometheus configuration, alerts and Grafana dashboards. The dashboards are generated: `python -m monitoring`."""

"""Traces by OpenTelemetry: spans of requests, messages, batches and side effects."""

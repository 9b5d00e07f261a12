"""Starts the tracing of a worker, if its settings ask for it."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.common.settings import Settings
from runtime.errors import TracingNotInstalled
from runtime.tracing.settings import TraceSettings
from runtime.tracing.tracer import Tracer

if TYPE_CHECKING:
    from runtime.tracing.otlp import Export

STOP_S = 1.0
"""Seconds of a stop in which spans that wait are exported. A collector that is away costs no more."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """The tracer of a worker, and its exporter."""

    tracer: Tracer
    export: "Export"

    async def stop(self) -> None:
        """Exports what waits, for `STOP_S` at most."""
        from runtime.tracing.otlp import stop_within

        await asyncio.to_thread(stop_within, self.export, STOP_S)


def start_tracing(settings: Settings, instance: str, group: str) -> Tracing | None:
    """Starts to trace; `None` if it is off, without an import of OpenTelemetry.

    Arguments:
        settings: of the worker.
        instance: the worker's name, unique among its service's.
        group: its consumer group, without the prefix of topics.

    Raises `TracingNotInstalled`.
    """
    own = settings.of(TraceSettings)
    if not own.on:
        return None
    try:
        from runtime.tracing import otlp
    except ImportError as error:
        raise TracingNotInstalled(
            f"tracing is on, and {error.name} is not installed: install `faust-orders[traces]`, "
            "or unset OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_EXPORTER"
        ) from None
    export = otlp.start(own, instance)
    return Tracing(Tracer(export.sample, export.record, settings.topic_prefix, group), export)

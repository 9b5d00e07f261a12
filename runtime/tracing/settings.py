"""Whether and how a worker traces: standard environment variables of OpenTelemetry.

Its SDK reads further ones itself: headers, timeout and certificates of the exporter, and sizes of its batches.
"""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from runtime.common.settings import ServiceSettings

SAMPLERS = ("always_on", "always_off", "traceidratio")
PARENT_BASED = "parentbased_"
PROTOCOL = "http/protobuf"
EXPORTERS = ("otlp", "console", "none")
SAMPLER = "parentbased_always_on"
"""The default of OpenTelemetry."""


class TraceSettings(ServiceSettings):
    """Settings of traces. An empty variable is an unset one, as OpenTelemetry demands.

    >>> TraceSettings(otel_exporter_otlp_endpoint="http://collector:4318").traces_endpoint
    'http://collector:4318/v1/traces'
    """

    otel_exporter_otlp_endpoint: str = Field(
        default="", description="Base URL of an OpenTelemetry collector, such as http://127.0.0.1:4318; turns traces on"
    )
    otel_exporter_otlp_traces_endpoint: str = Field(
        default="", description="URL of a collector for traces with its path, instead of the one above"
    )
    otel_traces_exporter: str = Field(
        default="", description="`otlp`, `console` or `none`; default: `otlp` once an endpoint is set, else `none`"
    )
    otel_sdk_disabled: str = Field(default="", description="`true` turns traces off")
    # Those below must be valid only if traces are on: whoever turns them off may leave them as they are.
    otel_exporter_otlp_protocol: str = Field(default=PROTOCOL, description="`http/protobuf`, the only one")
    otel_traces_sampler: str = Field(
        default=SAMPLER,
        description="Which traces are recorded: `always_on`, `always_off`, `traceidratio`, or `parentbased_` and one "
        "of these: as the caller has decided",
    )
    otel_traces_sampler_arg: str = Field(
        default="1.0", description="Share of traces, 0 to 1, that a sampler by ratio records"
    )
    otel_service_name: str = Field(
        default="", description="`service.name` of all spans; default: the service that a span belongs to"
    )

    @property
    def on(self) -> bool:
        """Whether the worker traces."""
        return _is_on(self.__dict__)

    @property
    def traces_endpoint(self) -> str:
        """URL that traces are sent to. The default is that of OpenTelemetry: a collector on this host."""
        base = self.otel_exporter_otlp_endpoint or "http://localhost:4318"
        return self.otel_exporter_otlp_traces_endpoint or f"{base.rstrip('/')}/v1/traces"

    @property
    def sampler(self) -> str:
        return self.otel_traces_sampler or SAMPLER

    @property
    def ratio(self) -> float:
        """Share of traces, 0 to 1."""
        return float(self.otel_traces_sampler_arg or 1)

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is no URL such as http://127.0.0.1:4318")
        return value

    @field_validator("otel_traces_exporter")
    @classmethod
    def _exporter(cls, value: str) -> str:
        return _known(value, EXPORTERS)

    @field_validator("otel_exporter_otlp_protocol")
    @classmethod
    def _protocol(cls, value: str, info: ValidationInfo) -> str:
        return _known(value, (PROTOCOL,), "; its port is usually 4318") if _is_on(info.data) else value

    @field_validator("otel_traces_sampler")
    @classmethod
    def _sampler(cls, value: str, info: ValidationInfo) -> str:
        known = (*SAMPLERS, *(PARENT_BASED + name for name in SAMPLERS))
        return _known(value, known) if _is_on(info.data) else value

    @field_validator("otel_traces_sampler_arg")
    @classmethod
    def _share(cls, value: str, info: ValidationInfo) -> str:
        if not _is_on(info.data) or not value:
            return value
        try:
            valid = 0 <= float(value) <= 1
        except ValueError:
            valid = False
        if not valid:
            raise ValueError(f"{value!r} is no number from 0 to 1")
        return value


def _is_on(values: dict[str, Any]) -> bool:
    endpoint = values.get("otel_exporter_otlp_endpoint") or values.get("otel_exporter_otlp_traces_endpoint")
    exporter = values.get("otel_traces_exporter") or ("otlp" if endpoint else "none")
    return exporter != "none" and str(values.get("otel_sdk_disabled", "")).lower() != "true"


def _known(value: str, known: tuple[str, ...], more: str = "") -> str:
    if value and value not in known:
        raise ValueError(f"{value!r} is not supported: use {' or '.join(known)}{more}")
    return value

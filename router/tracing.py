"""Spans, when a collector is configured; otherwise `Tracing.off()`, whose `begin` is one comparison.

A trace comes in and goes out as W3C traceparent (https://www.w3.org/TR/trace-context/#traceparent-header). The caller's
sampling decision is followed. Without one, `sample_ratio` decides by the trace id, with the same result on every pod.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")

Attributes = Mapping[str, str | int | float | bool]


class Span:
    """One unit of work that is being recorded. `end` it exactly once."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: "OtelSpan") -> None:
        self._span = span
        context = span.get_span_context()
        # The traceparent for the next service.
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def end(self, attributes: Attributes | None = None) -> None:
        """Done."""
        if attributes:
            self._span.set_attributes(dict(attributes))
        self._span.end()


class Tracing:
    """Makes spans. `enabled` is switched by the CP gate; a pod without a collector stays off."""

    def __init__(self, provider: "TracerProvider | None") -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("router")
        self.enabled = provider is not None

    @classmethod
    def off(cls) -> "Tracing":
        """No collector: nothing is recorded and nothing of OpenTelemetry is loaded."""
        return cls(None)

    @classmethod
    def to(cls, endpoint: str, *, pod: str, version: str, sample_ratio: float) -> "Tracing":
        """Send to an OTLP/HTTP collector such as http://collector:4318, in batches, from a thread of its own."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - costs a process without tracing 0.1 s

        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        return cls.with_exporter(exporter, pod=pod, version=version, sample_ratio=sample_ratio)

    @classmethod
    def with_exporter(cls, exporter: "SpanExporter", *, pod: str, version: str, sample_ratio: float) -> "Tracing":
        """Send to any exporter."""
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415

        resource = Resource.create({"service.name": "router", "service.version": version, "service.instance.id": pod})
        provider = TracerProvider(sampler=ParentBasedTraceIdRatio(sample_ratio), resource=resource)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def begin(self, name: str, traceparent: str | None = None, attributes: Attributes | None = None) -> Span | None:
        """A span that continues `traceparent` if it is valid; None when it is not recorded. Pass its traceparent on."""
        if not self.enabled or self._tracer is None:
            return None
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - loaded by now: a dict lookup

        span = self._tracer.start_span(name, _context(traceparent), SpanKind.SERVER, attributes)
        return Span(span) if span.is_recording() else None

    def set_enabled(self, on: bool) -> None:
        """Switch tracing as the gate opens or closes."""
        self.enabled = on and self._provider is not None

    def close(self) -> None:
        """Send the remaining spans; blocks for some seconds at most, so call it from a thread at shutdown."""
        if self._provider is not None:
            self._provider.shutdown()


def _context(traceparent: str | None) -> "Context":
    from opentelemetry.context import Context  # noqa: PLC0415 - see above
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context  # noqa: PLC0415

    # A separate context: spans of concurrent requests must not become each other's parents.
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return Context()
    flags = TraceFlags(int(match[3], 16))
    return set_span_in_context(
        NonRecordingSpan(
            SpanContext(trace_id=int(match[1], 16), span_id=int(match[2], 16), is_remote=True, trace_flags=flags)
        ),
        Context(),
    )

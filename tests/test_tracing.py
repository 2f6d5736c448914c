"""Spans continue the caller's trace, and cost nothing when nobody collects them."""

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from router.tracing import Tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
NOT_SAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


def tracing(ratio: float) -> tuple[Tracing, InMemorySpanExporter]:
    """Tracing into memory."""
    exporter = InMemorySpanExporter()
    return Tracing.with_exporter(exporter, pod="pod-1", version="1", sample_ratio=ratio), exporter


def test_without_a_collector_nothing_is_recorded() -> None:
    """Not even what the caller sampled."""
    assert Tracing.off().begin("decide", SAMPLED) is None


def test_without_a_collector_the_gate_switches_nothing_on() -> None:
    """There is nowhere to send to."""
    off = Tracing.off()
    off.set_enabled(True)
    assert off.begin("decide") is None


def test_a_span_continues_the_callers_trace() -> None:
    """Same trace, the caller's span as parent, attributes kept."""
    traces, exporter = tracing(0.0)
    span = traces.begin("decide", SAMPLED, {"tenant_id": "acme"})
    assert span is not None
    span.end({"outcome": "decided"})
    traces.close()
    (recorded,) = exporter.get_finished_spans()
    assert recorded.parent is not None
    assert f"{recorded.parent.span_id:016x}" == "b7ad6b7169203331"
    assert dict(recorded.attributes or {}) == {"tenant_id": "acme", "outcome": "decided"}
    context = recorded.get_span_context()
    assert context is not None
    assert span.traceparent == f"00-{TRACE}-{context.span_id:016x}-01"


def test_the_callers_no_is_followed() -> None:
    """Also when we would sample everything."""
    traces, _ = tracing(1.0)
    assert traces.begin("decide", NOT_SAMPLED) is None
    traces.close()


@pytest.mark.parametrize(("ratio", "recorded"), [(0.0, False), (1.0, True)])
def test_without_a_caller_the_ratio_decides(ratio: float, recorded: bool) -> None:
    """Nothing at 0, everything at 1."""
    traces, _ = tracing(ratio)
    span = traces.begin("decide")
    assert (span is not None) is recorded
    if span is not None:
        span.end()
    traces.close()


def test_the_gate_switches_spans_off() -> None:
    """The CP1 baseline does not trace."""
    traces, _ = tracing(1.0)
    traces.set_enabled(False)
    assert traces.begin("decide") is None
    traces.close()


def test_concurrent_spans_are_not_each_others_parents() -> None:
    """Two requests in one loop have two traces."""
    traces, exporter = tracing(1.0)
    one, two = traces.begin("a"), traces.begin("b")
    assert one is not None
    assert two is not None
    one.end()
    two.end()
    traces.close()
    assert all(s.parent is None for s in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (SAMPLED, TRACE),
        (f"01-{TRACE}-b7ad6b7169203331-01-more", TRACE),
        (None, None),
        ("", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (SAMPLED.upper(), None),
        (SAMPLED + "\n", None),
    ],
)
def test_only_a_valid_traceparent_is_used(traceparent: str | None, expected: str | None) -> None:
    """By the W3C rules. Of these only a caller's own trace is sampled."""
    traces, _ = tracing(0.0)
    span = traces.begin("decide", traceparent)
    traces.close()
    assert (span and span.traceparent.split("-")[1]) == expected


def test_without_a_collector_opentelemetry_is_not_loaded() -> None:
    """It costs a starting pod and every CLI call a tenth of a second."""
    code = "import sys, router.tracing as t; t.Tracing.off().begin('x'); sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

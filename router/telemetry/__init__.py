"""Telemetry of a pod: all event names (`events`), all metrics (`metrics`), and their cheap counters (`tally`)."""

from router.telemetry.events import Event
from router.telemetry.families import MetricRow
from router.telemetry.loop import LoopLag
from router.telemetry.metrics import CONTENT_TYPE, Telemetry, render
from router.telemetry.tally import Buckets, Decisions, Histogram, Totals

__all__ = [
    "CONTENT_TYPE",
    "Buckets",
    "Decisions",
    "Event",
    "Histogram",
    "LoopLag",
    "MetricRow",
    "Telemetry",
    "Totals",
    "render",
]

"""Metrics of extensions."""

from router.telemetry.families import Families
from router.telemetry.metrics.bounds import LONG


class ExtensionMetrics:
    """Counted by `usecases.extensions`."""

    def _extensions(self, families: Families) -> None:
        self.extension_calls = families.counter(
            "extension_calls",
            documentation="Extension calls, and steps without a call, by outcome.",
            labels=("stage", "outcome"),
        )
        self.extension_seconds = families.histogram(
            "extension_seconds", documentation="Duration of one extension call.", bounds=LONG, labels=("stage",)
        )
        self.extension_breakers = families.counter(
            "extension_breaker_transitions",
            documentation="State changes of extension breakers that this pod observed, by new state.",
            labels=("to",),
        )
        self.pipelines = families.gauge("pipelines", documentation="Requests that wait for their extensions.")
        self.decisions_undone = families.counter(
            "decisions_undone",
            documentation="Decisions undone because their post extensions failed or their pod died.",
            labels=("cause",),
        )

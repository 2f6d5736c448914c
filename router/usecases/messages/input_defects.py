"""Defects that did not cost their message: counted, and logged once a minute for each kind."""

import logging
import time

from router.domain.defects import Warnings
from router.log_throttle import LogThrottle
from router.telemetry import Event, Telemetry

log = logging.getLogger("router.input")


class InputDefects:
    """Counts the defects of one kind of message, for example `result`."""

    def __init__(self, telemetry: Telemetry, message: str) -> None:
        self._counts = telemetry.input_defects
        self._message = message
        self._throttle = LogThrottle(time.monotonic)

    def count(self, warnings: Warnings, tenant_id: str | None = None) -> None:
        """Count and log the warnings of one message; `tenant_id` is the tenant that it names."""
        for defect, text in warnings:
            self._counts.labels(self._message, defect.value).inc()
            if (suppressed := self._throttle.due(defect)) is not None:
                fields = {"event": Event.INPUT_DEFECT, "warning": text, "unsaid": suppressed}
                if tenant_id is not None:
                    fields["tenant_id"] = tenant_id
                log.warning("%s with a defect", self._message, extra=fields)

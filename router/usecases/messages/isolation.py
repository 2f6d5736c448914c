"""Somebody named another tenant than the one whose it is: refused where it is seen; counted and alerted here."""

from router.domain.alert import Condition, Door
from router.domain.json import JsonObject
from router.ports.alerts import AlertSink
from router.telemetry import Telemetry


class Isolation:
    """`owner`: whose it is, where that is known to be a tenant of ours: never what was claimed."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink) -> None:
        self._counts = telemetry.isolation_violations
        self._alerts = alerts

    def violated(self, door: Door, owner: str | None = None) -> None:
        """One violation. Never raises; an episode of alerts is one, however many there are."""
        self._counts.labels(door.value).inc()
        if owner is None:
            # A slash cannot be in a tenant's name.
            self._alerts.happened(Condition.ISOLATION_VIOLATION, f"door/{door}", metadata={"door": door.value})
        else:
            metadata: JsonObject = {"door": door.value, "tenant_id": owner}
            self._alerts.happened(Condition.ISOLATION_VIOLATION, owner, metadata=metadata)

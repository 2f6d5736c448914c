"""Isolation violations: a message names a tenant that is not the owner. They are counted and alerted."""

from router.domain.alert import Condition, Door
from router.domain.json import JsonObject
from router.ports.alerts import AlertSink
from router.telemetry import Telemetry


class IsolationViolations:
    """Counts violations and raises their alert."""

    def __init__(self, telemetry: Telemetry, alerts: AlertSink) -> None:
        self._counts = telemetry.isolation_violations
        self._alerts = alerts

    def violated(self, door: Door, owner: str | None = None) -> None:
        """Count a violation and alert; repeated violations share one alert. Never raises.

        `owner`: the tenant that owns the data, if known; never a tenant name that the message only claims.
        """
        self._counts.labels(door.value).inc()
        if owner is None:
            # The slash keeps this scope apart from tenant names, which cannot contain one.
            self._alerts.occurred(Condition.ISOLATION_VIOLATION, f"door/{door}", metadata={"door": door.value})
        else:
            metadata: JsonObject = {"door": door.value, "tenant_id": owner}
            self._alerts.occurred(Condition.ISOLATION_VIOLATION, owner, metadata=metadata)

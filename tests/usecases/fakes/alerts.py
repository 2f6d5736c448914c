"""`ports.alerts.AlertSink` that remembers what it was told."""

from router.domain.alert import Condition
from router.domain.json import JsonObject


class RecordedAlerts:
    """`open`: raised and not resolved since; `resolved`: the scopes of all ends; `events`: what happened."""

    def __init__(self) -> None:
        self.open: set[Condition] = set()
        self.resolved: list[str] = []
        self.events: list[tuple[Condition, str]] = []

    def raise_(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        self.open.add(condition)

    def resolve(self, condition: Condition, scope: str, message: str = "", metadata: JsonObject | None = None) -> None:
        self.open.discard(condition)
        self.resolved.append(scope)

    def occurred(
        self, condition: Condition, scope: str, *, message: str = "", metadata: JsonObject | None = None
    ) -> None:
        self.events.append((condition, scope))

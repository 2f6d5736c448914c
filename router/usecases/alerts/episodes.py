"""Episodes of alerts: where the fleet counts them, and what a pod remembers of its own."""

from msgspec import Struct

from router.domain.alert import Condition
from router.domain.json import JsonObject


class Step(Struct, frozen=True):
    """Something to send: an episode's beginning, or its end."""

    condition: Condition
    scope: str
    message: str
    metadata: JsonObject
    at_ms: int
    resolved: bool


class Begun(Struct, frozen=True):
    """An episode that has its identity. `epoch` None: the wall clock's, nothing to close in the store."""

    alert_id: str
    epoch: int | None


class Held(Struct):
    """An open episode. `ends_ms`: when it ends, unless it is seen again; `over`: what was said of its end, and when."""

    metadata: JsonObject
    ends_ms: int | None = None
    over: tuple[str, int] | None = None

"""What a pod remembers of alert episodes (`usecases.alerts.alerts`)."""

from msgspec import Struct

from router.domain.alert import Condition
from router.domain.json import JsonObject


class Transition(Struct, frozen=True):
    """The begin or the end of an episode, to be published."""

    condition: Condition
    scope: str
    message: str
    metadata: JsonObject
    at_ms: int
    resolved: bool


class Identity(Struct, frozen=True):
    """The id of an episode. `epoch` None: it was made without Redis, so there is nothing to close there."""

    alert_id: str
    epoch: int | None


class OpenEpisode(Struct):
    """An open episode. `ends_ms`: when it ends unless it is raised again; `resolution`: end message and its time."""

    metadata: JsonObject
    ends_ms: int | None = None
    resolution: tuple[str, int] | None = None

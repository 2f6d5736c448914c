"""A decide request that this pod has accepted."""

from msgspec import Struct

from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.tracing import Span
from router.usecases.decide.overload import Reply


class OpenRequest(Struct):
    """A request between its arrival and its answer. `started`: loop time in s; `since`: the same once it has waited for
    the store, else None. `read_figures`: whether it has waited for its tenant's figures. `holder`: see
    `domain.decide.admission`.
    """

    request: DecideRequest
    protobuf: bool
    reply: Reply | None
    started: float
    holder: str
    span: Span | None = None
    plan: Plan | None = None
    job: bytes | None = None
    answered: bool = False
    since: float | None = None
    read_figures: bool = False

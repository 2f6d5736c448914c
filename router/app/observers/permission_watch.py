"""What a pod does while NATS refuses it a subject that it needs: not ready, or a part off; and an alert.

| refused | then |
|---|---|
| decide requests | not ready: the pod answers no request |
| results | `results` and `dispatch` are off: pushed tasks would run and time out, so they are refused |
| any other subscription, acks, replies, streams | the part is off (`_PARTS`, `_OF_STREAMS`) |

The bus and the pull loops try again, so all of it ends within 15 s of the permission's return, without a restart.
"""

import logging
from collections.abc import Callable, Mapping

from router.bus.client.connection import Bus
from router.bus.client.permissions import Refusal
from router.bus.consuming.pull_loop import PullLoop
from router.bus.streams.specs import StreamSpec
from router.domain.alert import Condition
from router.domain.degraded import Degradable
from router.edge.readiness import Readiness
from router.ports.alerts import AlertSink
from router.telemetry import Event, Telemetry
from router.usecases.tasks.push_gate import PushGate
from router.wire import subjects

log = logging.getLogger("router.app")

REPLIES_S = 10.0
"""How long `replies` stays off after a refused reply; the next reply shows whether the refusal lasts."""
_BY = "permissions"
_DOORS = (subjects.DECIDE, f"{subjects.DECIDE}.>")
_BOUND_QUERIES = f"{subjects.GET_DECISION}.>"
_PARTS: Mapping[str, Degradable] = {
    subjects.GET_DECISION: Degradable.QUERIES,
    _BOUND_QUERIES: Degradable.BOUND_QUERIES,
    subjects.BACKPRESSURE: Degradable.STATUS,
    f"{subjects.ADMIN}.*": Degradable.ADMIN,
    subjects.POLICY_CHANGED: Degradable.ANNOUNCEMENTS,
    subjects.HEARTBEAT: Degradable.WORKER_SIGNALS,
    subjects.WORKER_DEAD_LETTER: Degradable.WORKER_SIGNALS,
}
_OF_LOOPS: Mapping[str, Degradable] = {"result": Degradable.RESULTS, "ack": Degradable.ACKS}
_OF_STREAMS: Mapping[str, Degradable] = {
    "result": Degradable.RESULTS,
    "usage": Degradable.USAGE,
    "assigned": Degradable.EVENTS,
    "dlq": Degradable.DEAD_LETTERS,
    "alert": Degradable.ALERTS,
    "audit": Degradable.AUDIT_EXPORT,
}


class PermissionWatch:
    """Reads what is refused once a second; see the module. `loops`: the pull loops by the name of their content.

    `inboxes`: how the usual reply subjects begin.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        readiness: Readiness,
        alerts: AlertSink,
        push_gate: PushGate,
        telemetry: Telemetry,
        streams: tuple[StreamSpec, ...],
        inboxes: tuple[str, ...],
        now_s: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._readiness = readiness
        self._alerts = alerts
        self._push_gate = push_gate
        self._lost_now = telemetry.nats_permissions_lost
        self._streams = streams
        self._inboxes = inboxes
        self._now_s = now_s
        self.loops: Mapping[str, PullLoop] = {}
        self._off: set[Degradable] = set()
        self._alerted: set[str] = set()
        self._deaf = False
        self._reply: Refusal | None = None
        self._reply_until = float("-inf")
        bus.on_publish_refused.append(self._publish_refused)

    def tick(self) -> None:
        """Call once a second while the pod does not drain."""
        lost = self._bus.lost
        if self._now_s() >= self._reply_until:
            self._reply = None
        self._ready(next((lost[door] for door in _DOORS if door in lost), None))
        self._switch(self._parts(lost))
        results = self.loops.get("result")
        deaf = None if results is None else results.trouble.deaf
        self._push_gate.unheard(None if deaf is None else f"results do not arrive: {deaf}")
        self._alert(lost)

    def _ready(self, why: Refusal | None) -> None:
        if why is not None:
            reason = f"{why}; tried again every 10 s"
            if not self._deaf:
                log.error("not ready: %s", reason, extra={"event": Event.POD_NOT_READY})
            self._deaf = True
            self._readiness.not_ok("serving", reason=reason)
        elif self._deaf:
            self._deaf = False
            self._readiness.ok("serving")
            log.info("decide requests are permitted again", extra={"event": Event.POD_READY})

    def _parts(self, lost: Mapping[str, Refusal]) -> dict[Degradable, str]:
        off: dict[Degradable, str] = {}
        for subject, part in _PARTS.items():
            if subject in lost:
                off.setdefault(part, str(lost[subject]))
        for name, loop in self.loops.items():
            if (why := loop.trouble.deaf or loop.trouble.mute) is not None:
                off[_OF_LOOPS[name]] = str(why)
        for spec in self._streams:
            part_of = _OF_STREAMS.get(spec.kind)
            if part_of is not None and (reason := self._push_gate.reason(spec.name)) is not None:
                off[part_of] = reason
        if self._reply is not None:
            off[Degradable.REPLIES] = str(self._reply)
        return off

    def _switch(self, off: Mapping[Degradable, str]) -> None:
        for part in self._off - off.keys():
            self._readiness.restore(part, by=_BY)
        for part, reason in off.items():
            self._readiness.degrade(part, reason, by=_BY)
        self._off = set(off)

    def _alert(self, lost: Mapping[str, Refusal]) -> None:
        """One alert per subject to permit: all inboxes have one. Streams that refuse have an alert of their own."""
        found = [refusal for subject, refusal in lost.items() if subject != _BOUND_QUERIES]
        found += [why for loop in self.loops.values() for why in (loop.trouble.deaf, loop.trouble.mute) if why]
        found += [self._reply] if self._reply is not None else []
        refusals = {refusal.subject: refusal for refusal in found}
        self._lost_now.set(len(refusals))
        for subject in self._alerted - refusals.keys():
            self._alerts.resolve(Condition.PERMISSION_LOST, subject)
        for subject, refusal in refusals.items():
            self._alerts.raise_(
                Condition.PERMISSION_LOST, subject, message=f"{refusal}: permit it", metadata={"subject": subject}
            )
        self._alerted = set(refusals)

    def _publish_refused(self, refusal: Refusal) -> None:
        for inbox in self._inboxes:
            if refusal.subject.startswith(inbox):
                self._reply = Refusal("publish", f"{inbox}>")
                self._reply_until = self._now_s() + REPLIES_S

"""Refusals for overload, before a request is read: by the rules of `domain.decide.admission`, and after a standstill.

A pod must refuse requests faster than they arrive; otherwise they queue in front of it, and every caller waits. So the
replies are encoded at start-up, in variants with different `retry_after_ms`, and only the tenant of a request is read.
Refusals are counted, and logged once a minute.
"""

import logging
from collections.abc import Callable, Mapping
from itertools import cycle

from router.domain.decide.admission import LOADING, Admission, Shed
from router.domain.decide.answers import overloaded
from router.domain.gate import Features
from router.log_throttle import LogThrottle
from router.ports.policies import Loading, PolicyLookup
from router.telemetry import Event, Telemetry
from router.usecases.decide.intake import DecideSettings
from router.usecases.decide.standstill import Standstill
from router.wire.reply import encode, encode_protobuf
from router.wire.request.peek import peek_tenant

log = logging.getLogger("router.decide")

VARIANTS = 32

Reply = Callable[[bytes, Mapping[str, str] | None], None]


class Overload:
    """Refuses requests. `clock`: the loop's time, in s."""

    def __init__(
        self,
        admission: Admission,
        policies: PolicyLookup,
        features: Callable[[], Features],
        telemetry: Telemetry,
        settings: DecideSettings,
        *,
        standstill: Standstill,
        clock: Callable[[], float],
    ) -> None:
        self._admission = admission
        self._policies = policies
        self._features = features
        self._serves_one = len(settings.allowed_tenants) == 1
        self._standstill = standstill
        self._clock = clock
        self._counters = {cause: telemetry.shed.labels(cause.value) for cause in Shed}
        self._throttle = LogThrottle(clock)
        legacy = settings.legacy_error_codes
        refusals = {cause: [overloaded(cause, str(n)) for n in range(VARIANTS)] for cause in Shed}
        self._json = {
            cause: cycle([encode(r, request_id=None, trace_id=None, legacy_codes=legacy) for r in of_cause])
            for cause, of_cause in refusals.items()
        }
        self._protobuf = {
            cause: encode_protobuf(of_cause[0], request_id=None, trace_id=None, legacy_codes=legacy)
            for cause, of_cause in refusals.items()
        }
        self.shed_at = float("-inf")
        """Time of the last refusal that concerns all callers. A refusal because of a tenant's own share does not count.
        """

    def refuse_unread(
        self,
        data: bytes,
        headers: Mapping[str, str] | None,
        subject_tenant: str | None,
        reply: Reply | None,
        *,
        protobuf: bool,
        now: float,
    ) -> bool:
        """Refuse a request that waited through a standstill, or is beyond its share of a crowded pod; False: continue
        with it.
        """
        admission = self._admission
        if now > self._standstill.alive_until:
            self._standstill.notice(now)
            self._refuse(Shed.STALE, None, reply, protobuf=protobuf)
            return True
        if admission.in_flight >= admission.bound:
            self._refuse(Shed.FULL, None, reply, protobuf=protobuf)
            return True
        tenant_id = peek_tenant(data, headers, subject_tenant, protobuf=protobuf)
        return tenant_id is not None and self.refuse_over_share(tenant_id, reply, protobuf=protobuf)

    def refuse_over_share(self, tenant_id: str, reply: Reply | None, *, protobuf: bool) -> bool:
        """Refuse a request to a crowded pod if its tenant has used up its share; False: continue with it."""
        loading = isinstance(self._policies.get(tenant_id), Loading)
        if self._admission.admits(LOADING if loading else tenant_id) or self._serves_one_tenant():
            return False
        self._refuse(Shed.LOADING if loading else Shed.TENANT, tenant_id, reply, protobuf=protobuf)
        return True

    def _serves_one_tenant(self) -> bool:
        return self._serves_one or not self._features().multi_tenant

    def _refuse(self, cause: Shed, tenant_id: str | None, reply: Reply | None, *, protobuf: bool) -> None:
        self._counters[cause].inc()
        if cause is Shed.FULL or cause is Shed.STALE:
            self.shed_at = self._clock()
        if (suppressed := self._throttle.due(f"{cause} {tenant_id}" if cause is Shed.TENANT else cause)) is not None:
            self._log(cause, tenant_id, suppressed)
        if reply is None:
            return
        if protobuf:
            reply(*self._protobuf[cause])
        else:
            reply(next(self._json[cause]), None)

    def _log(self, cause: Shed, tenant_id: str | None, suppressed: int) -> None:
        facts: dict[str, object] = {"event": Event.OVERLOAD_REFUSED, "cause": cause.value, "unsaid": suppressed}
        if cause is Shed.TENANT:
            facts["tenant_id"] = tenant_id
        in_flight, share = self._admission.in_flight, self._admission.share
        log.warning("requests refused (%s): %d in flight, share %d", cause.value, in_flight, share, extra=facts)

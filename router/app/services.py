"""The services of a pod beside decide requests: queries, status and admin acts over NATS, pages over HTTP."""

import asyncio
import time
from functools import partial

from router import __version__
from router.app.adapter_settings import admin_tokens, forget_ms, quotas
from router.app.deciding import DecideParts
from router.app.platform import Platform, wall_ms
from router.app.policies import PolicyParts
from router.app.tasks import TaskParts
from router.bus.announce import Announcements
from router.bus.requests import service
from router.domain.alert import Door
from router.domain.audit.records import Actor
from router.domain.decide.decision import Code, Refused
from router.domain.json import JsonObject
from router.edge.http.pages import pages
from router.edge.http.server import HttpServer
from router.edge.http.site import site
from router.usecases.admin.acts.act import AdminServices
from router.usecases.admin.admin import Admin
from router.usecases.admin.backpressure import Backpressure, RecentLatency
from router.usecases.admin.get_decision import GetDecision
from router.usecases.admin.overrides import OverrideService
from router.usecases.admin.purge import Purger
from router.usecases.admin.reads import ReadBounds, Reads
from router.usecases.admin.wrong_secrets import ADMIN_TOKEN, WrongSecrets
from router.usecases.policies.publish import PolicyPublisher
from router.wire import subjects
from router.wire.reply import encode

_BUSY_MS = 100
_AT_ONCE, _ADMIN_AT_ONCE = 64, 512


class Services:
    """Builds the services. The pod starts `http` first, and calls `open` once NATS is available."""

    def __init__(self, platform: Platform, policies: PolicyParts, tasks: TaskParts, deciding: DecideParts) -> None:
        self._platform, self._policies, self._deciding = platform, policies, deciding
        s, t = platform.settings, platform.telemetry
        self.recent = RecentLatency(t.latency.counts, t.latency.bounds_ms, without=t.extended_latency.counts)
        loop = asyncio.get_running_loop()
        self._backpressure = Backpressure(
            lambda: tasks.lag,
            self.recent,
            lambda: deciding.decide.in_flight,
            wall_ms,
            shed_for_s=lambda: loop.time() - deciding.decide.shed_at,
            max_in_flight=s.max_in_flight,
        )
        self.http = HttpServer(
            site(
                pages(
                    pod=s.pod_name,
                    version=__version__,
                    readiness=platform.readiness,
                    telemetry=t,
                    backpressure_active=self._backpressure.active,
                    gate=platform.gate_facts,
                )
            ),
            max_connections=s.http_max_connections,
        )
        self.tokens = admin_tokens(s)
        self.wrong_tokens = WrongSecrets(
            ADMIN_TOKEN, platform.alerts, count=t.admin_wrong_tokens.inc, clock=time.monotonic
        )
        self.get_decision = GetDecision(
            platform.store.decisions,
            platform.store.tasks,
            telemetry=t,
            on_isolation_violation=partial(platform.isolation.violated, Door.QUERY),
            legacy_codes=s.legacy_error_codes,
            message_index=s.message_index != "off",
        )
        self._open: list[service.Service] = []

    async def open(self) -> None:
        """Subscribe to the subjects and answer on them. After an error, call it again: it continues where it stopped.

        :raises BusError: NATS is unavailable, or does not permit a subscription.
        """
        platform = self._platform
        s = platform.settings
        headers = {"router-pod": s.pod_name}
        fault = partial(_fault_reply, legacy_codes=s.legacy_error_codes)
        served = (
            (subjects.GET_DECISION, self.get_decision),
            (subjects.BACKPRESSURE, self._backpressure),
            (f"{subjects.ADMIN}.*", self._admin()),
            (f"{subjects.GET_DECISION}.>", self.get_decision),
        )
        for subject, handler in served[len(self._open) :]:
            opened = await service.serve(
                bus=platform.bus,
                subject=subject,
                queue="router",
                handler=handler,
                fault_reply=fault,
                replies=platform.replies,
                headers=headers,
                # More places than reads may use: levers must not wait behind reads.
                max_in_flight=_ADMIN_AT_ONCE if subject.startswith(subjects.ADMIN) else _AT_ONCE,
                # Version 0.1.0 had no such subject, so the rights of its user do not cover it.
                optional=subject == f"{subjects.GET_DECISION}.>",
            )
            self._open.append(opened)

    def _admin(self) -> Admin:
        platform = self._platform
        s, store = platform.settings, platform.store
        announcements = Announcements(platform.bus)

        def overrides(by: Actor) -> OverrideService:
            return OverrideService(store.levers, store.inspector, store.policies, by)

        def publisher(by: Actor) -> PolicyPublisher:
            return PolicyPublisher(store.policies, announcements, by, quotas(s))

        def purger(by: Actor) -> Purger:
            return Purger(store.tenants, store.levers, announcements, by, forget_ms=forget_ms(s))

        services = AdminServices(
            policies=self._policies.cache,
            inspector=store.inspector,
            extensions=store.extensions,
            tenants=store.tenants,
            dry_run=self._deciding.dry_run.answer,
            overrides=overrides,
            publisher=publisher,
            purger=purger,
        )
        return Admin(
            services,
            self.tokens,
            store.levers,
            platform.telemetry,
            reads=Reads(
                ReadBounds(per_s=s.admin_read_rate, at_once=s.admin_reads_at_once),
                asyncio.get_running_loop().time,
                platform.telemetry.admin_reads_shared.inc,
            ),
            on_wrong_token=self.wrong_tokens.seen,
            legacy_codes=s.legacy_error_codes,
        )

    async def drained(self) -> None:
        """Stop answering on the subjects; HTTP stays."""
        for service_handle in self._open:
            await service_handle.stop()


def _fault_reply(code: str, *, message: str, legacy_codes: bool) -> bytes:
    details: JsonObject = {} if Code(code) is Code.INTERNAL else {"retry_after_ms": _BUSY_MS}
    return encode(Refused(Code(code), message, details), request_id=None, trace_id=None, legacy_codes=legacy_codes)

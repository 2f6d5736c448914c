"""The decide parts of a pod: subscription, use case, extensions, dry run."""

import os
from functools import partial

from router.app.adapter_settings import audit_identity, decide_settings
from router.app.audit import AuditParts
from router.app.platform import Platform
from router.app.policies import PolicyParts
from router.app.tasks import TaskParts
from router.bus.extensions import BusExtensions
from router.bus.requests.decide_endpoint import DecideEndpoint
from router.domain.alert import Door
from router.usecases.decide.decide import Decide
from router.usecases.decide.dry_run import DryRun
from router.usecases.decide.outcomes import Outcomes
from router.usecases.decide.standstill import Standstill
from router.usecases.extensions.flow import ExtensionFlow, FlowPorts
from router.usecases.extensions.health_watch import ExtensionHealthWatch
from router.usecases.extensions.pipeline import Pipeline


class DecideParts:
    """Builds the decide parts."""

    def __init__(self, platform: Platform, audit: AuditParts, policies: PolicyParts, tasks: TaskParts) -> None:
        s, t, store = platform.settings, platform.telemetry, platform.store
        self.watch = ExtensionHealthWatch(
            store.extensions, t, platform.alerts, now_ms=platform.now_ms, random=os.urandom
        )
        ports = FlowPorts(
            decisions=store.decisions,
            tasks=store.tasks,
            claims=store.claims,
            unfinished=tasks.unfinished,
            pipeline=Pipeline(BusExtensions(platform.bus), self.watch, t),
        )
        settings = decide_settings(s)
        outcomes = Outcomes(
            store.decisions,
            policies.cache,
            t,
            settings.on_store_error,
            on_degraded=audit.deferred.add,
            on_unrecorded=audit.unrecorded.refused,
            on_replay=tasks.repeats.replayed,
            audit_lines=platform.audit_lines,
        )
        self.standstill = Standstill(platform.bus.flush)
        self.decide = Decide(
            store=store.decisions,
            policies=policies.cache,
            features=platform.features,
            dispatch=tasks.dispatcher,
            telemetry=t,
            settings=settings,
            outcomes=outcomes,
            tracing=platform.tracing,
            snapshot=policies.figures.snapshot,
            first_read=policies.figures.first_reads.get,
            extensions=ExtensionFlow(
                ports, t, max_ms=s.pipeline_deadline_ms, max_running=s.pipelines_max, wait_s=settings.wait_s
            ),
            on_unknown_tenant=audit.unknown.refused,
            on_isolation_violation=partial(platform.isolation.violated, Door.DECIDE),
            push_refusal=platform.push_gate.refusal,
            identity=audit_identity(s),
            standstill=self.standstill,
        )
        self.dry_run = DryRun(
            decisions=store.decisions,
            features=platform.features,
            settings=settings,
            snapshot=policies.figures.snapshot,
            extensions=store.extensions,
        )
        self.endpoint = DecideEndpoint(platform.bus, self.decide.handle, s.pod_name, replies=platform.replies)

"""Decide requests: the door, the use case behind it, the extensions that a policy may call."""

import os
from functools import partial

from router.app.adapter_settings import decide_settings
from router.app.audit import AuditParts
from router.app.platform import Ground
from router.app.policies import PolicyParts
from router.app.tasks import TaskParts
from router.bus.decide_door import DecideDoor
from router.bus.extensions import BusExtensions
from router.domain.alert import Door
from router.usecases.decide.decide import Decide
from router.usecases.decide.dry_run import DryRun
from router.usecases.decide.outcomes import Outcomes
from router.usecases.extensions.flow import Extended, Reach
from router.usecases.extensions.health_watch import ExtensionWatch
from router.usecases.extensions.pipeline import Pipeline


class DecideParts:
    """See the module."""

    def __init__(self, ground: Ground, audit: AuditParts, policies: PolicyParts, tasks: TaskParts) -> None:
        s, t, store = ground.settings, ground.telemetry, ground.store
        self.watch = ExtensionWatch(store.extensions, t, ground.alerts, now_ms=ground.now_ms, random=os.urandom)
        reach = Reach(
            store.decisions,
            store.tasks,
            store.claims,
            tasks.unfinished,
            Pipeline(BusExtensions(ground.bus), self.watch, t),
        )
        settings = decide_settings(s)
        outcomes = Outcomes(
            store.decisions,
            policies.cache,
            t,
            settings.on_store_error,
            degraded_made=audit.deferred.made,
            unrecorded=audit.unrecorded.refused,
            audit_lines=ground.audit_lines,
        )
        self.decide = Decide(
            store.decisions,
            policies.cache,
            ground.features,
            tasks.dispatcher,
            t,
            settings,
            read=outcomes.read,
            tracing=ground.tracing,
            snapshot=policies.figures.snapshot,
            extensions=Extended(reach, t, most_ms=s.pipeline_deadline_ms, most=s.pipelines_max),
            unknown=audit.unknown.refused,
            violated=partial(ground.isolation.violated, Door.DECIDE),
        )
        self.dry_run = DryRun(store.decisions, ground.features, settings, policies.figures.snapshot, store.extensions)
        self.door = DecideDoor(ground.bus, self.decide.handle, s.pod_name)

"""The tenant parts of a pod: policies, seed, live figures of providers, limit usage, breaker episodes."""

import time
from functools import partial

from router.app.adapter_settings import cache_settings, quotas
from router.app.audit import AuditParts
from router.app.observers.policy_watch import CacheWatch, SeedWatch
from router.app.platform import Platform
from router.bus.announce import Announcements
from router.domain.policy.vocabulary import OnStoreError
from router.store.tenants.sample import RedisSample
from router.usecases.alerts.breaker_episodes import BreakerEpisodes
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.decision_quotas import DecisionQuotas, WithQuotas
from router.usecases.policies.folder import FolderContents, read_folder
from router.usecases.policies.seed import Seeder, SeedKeeper, Source
from router.usecases.sampling.figures import LiveFigures
from router.usecases.sampling.limit_usage import LimitUsageSampler
from router.usecases.sampling.store_keys import StoreKeySampler


class PolicyParts:
    """Builds the tenant parts."""

    def __init__(self, platform: Platform, audit: AuditParts) -> None:
        s, t, store = platform.settings, platform.telemetry, platform.store
        watch = CacheWatch(t, served=audit.retention.served)
        of_decisions = DecisionQuotas(s.quota_requests, s.quota_audit_rate)
        self.cache = PolicyCache(
            WithQuotas(store.policies, of_decisions, OnStoreError(s.on_store_error)),
            watch,
            cache_settings(s),
            clock=time.monotonic,
            unreadable=store.policies.unreadable,
        )
        watch.read(self.cache)
        platform.bus.on_connect.append(self.cache.announced_all)
        read = partial(read_folder, s.policy_dir) if s.policy_dir is not None else FolderContents
        self.guard = SeedKeeper(
            store.policies,
            store.meta,
            Seeder(store.policies, read, Announcements(platform.bus), quotas(s)),
            SeedWatch(t, platform.alerts),
            source=Source(s.policy_source),
            reload=self.cache.announced,
            reload_all=self.cache.announced_all,
        )
        watch.suspect = self.guard.suspect
        self.figures = LiveFigures(store.figures, t, clock=time.monotonic)
        sample = RedisSample(store.keys, store.nodes, s.pod_name)
        self.census = StoreKeySampler(
            sample, t, platform.alerts, max_bytes=s.store_kind_max_bytes, may_work=platform.may_work
        )
        self.measure = LimitUsageSampler(store.measure, self.cache.held, sample.lead, t, may_work=platform.may_work)
        self.breaker_episodes = BreakerEpisodes(
            store.epochs, store.inspector, platform.alerts, may_work=platform.may_work
        )

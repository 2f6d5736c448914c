"""End the alerts of breakers that closed without any pod reporting it.

That happens when an operator resets a breaker, its state expires, its provider is removed, or the pod that saw it close
dies first. Every pod checks; the end of an episode has one message id, so the stream stores it once.
"""

import asyncio
import logging
from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.domain.levers import BreakerState
from router.domain.policy.model import provider_entry
from router.errors import StoreError
from router.ports.alerts import AlertSink, OpenEpisodes
from router.ports.tenants import Inspector

log = logging.getLogger("router.breakers")

EVERY_S = 30.0
# Scopes of extension breakers begin with this; `usecases.extensions.health_watch` ends their alerts.
_EXTENSIONS = "extension"


class BreakerEpisodes:
    """Polls every `every_s` seconds. An end may be published too early when the breaker opens during a poll."""

    def __init__(
        self,
        episodes: OpenEpisodes,
        inspector: Inspector,
        alerts: AlertSink,
        *,
        may_work: Callable[[], bool],
        every_s: float = EVERY_S,
    ) -> None:
        self._episodes = episodes
        self._inspector = inspector
        self._alerts = alerts
        self._may_work = may_work
        self._every_s = every_s

    async def run(self) -> None:
        """Poll forever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if self._may_work():
                    await self.poll()
            except StoreError as fault:
                log.debug("store unavailable; open breaker alerts are checked later: %s", fault)

    async def poll(self) -> None:
        """Resolve the open breaker alerts whose breaker is closed.

        :raises StoreError: Redis did not answer.
        """
        open_by_tenant: dict[str, list[str]] = {}
        for scope in await self._episodes.open_scopes(Condition.BREAKER_OPENED):
            tenant, _, provider = scope.partition("/")
            if tenant != _EXTENSIONS:
                open_by_tenant.setdefault(tenant, []).append(provider)
        for tenant, providers in open_by_tenant.items():
            views = await self._inspector.breakers(tenant)
            not_closed = {v.provider_entry for v in views if v.state is not BreakerState.CLOSED}
            for provider in providers:
                if provider_entry(provider) not in not_closed:
                    metadata: JsonObject = {"tenant_id": tenant, "provider_id": provider}
                    self._alerts.resolve(Condition.BREAKER_OPENED, f"{tenant}/{provider}", metadata=metadata)

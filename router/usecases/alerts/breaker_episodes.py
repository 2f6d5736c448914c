"""Ends the alerts of breakers that are closed although no pod saw them close: an operator reset them, their state ran
out, their provider is gone, or the pod that saw it died before it told.

Every pod looks; the end of an episode has one id, so the stream keeps one.
"""

import asyncio
import logging
from collections.abc import Callable

from router.domain.alert import Condition
from router.domain.json import JsonObject
from router.domain.policy.model import provider_entry
from router.domain.view import BreakerState
from router.errors import StoreError
from router.ports.alerts import AlertSink, OpenEpisodes
from router.ports.tenants import Inspector

log = logging.getLogger("router.breakers")

EVERY_S = 30.0
# Scopes of extensions' breakers begin so; those are watched by whoever calls them.
_EXTENSIONS = "extension"


class BreakerEpisodes:
    """Looks every `every_s` seconds. A breaker that opens while it looks may be told as over; its next turn is told."""

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
        """Look for ever; cancel to stop."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                if self._may_work():
                    await self.poll()
            except StoreError as fault:
                log.debug("open breakers are not looked at now: %s", fault)

    async def poll(self) -> None:
        """End what is over.

        :raises StoreError: Redis did not answer.
        """
        told: dict[str, list[str]] = {}
        for scope in await self._episodes.open_scopes(Condition.BREAKER_OPENED):
            tenant, _, provider = scope.partition("/")
            if tenant != _EXTENSIONS:
                told.setdefault(tenant, []).append(provider)
        for tenant, providers in told.items():
            views = await self._inspector.breakers(tenant)
            held = {v.provider_entry for v in views if v.state is not BreakerState.CLOSED}
            for provider in providers:
                if provider_entry(provider) not in held:
                    metadata: JsonObject = {"tenant_id": tenant, "provider_id": provider}
                    self._alerts.resolve(Condition.BREAKER_OPENED, f"{tenant}/{provider}", metadata=metadata)

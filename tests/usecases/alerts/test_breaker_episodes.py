"""Alerts of breakers end although nobody saw the breaker close."""

from collections.abc import AsyncIterator

import pytest

from router.domain.levers import BreakerState, BreakerView, TenantHead
from router.domain.policy.model import provider_entry
from router.usecases.alerts.breaker_episodes import BreakerEpisodes
from tests.usecases.fakes.alerts import RecordedAlerts

SCOPES = ["acme/a", "acme/pool/b", "globex/a", "extension/pre/mask"]


class Room:
    """Episodes and breakers in memory."""

    def __init__(self, *views: BreakerView) -> None:
        self._views = views

    async def open_scopes(self, condition: str) -> list[str]:
        assert condition == "breaker_opened"
        return SCOPES

    def all_breakers(self, after: str = "") -> AsyncIterator[list[BreakerView]]:
        """Not asked for here."""
        raise NotImplementedError

    async def breakers(self, tenant_id: str) -> list[BreakerView]:
        return [v for v in self._views if v.tenant_id == tenant_id]

    async def heads(self, tenant_id: str | None = None) -> list[TenantHead]:
        raise NotImplementedError


def view(tenant: str, provider: str, state: BreakerState) -> BreakerView:
    """A breaker."""
    return BreakerView(tenant, provider_entry(provider), state, 1, 2, 3)


@pytest.mark.parametrize(
    ("views", "over"),
    [
        ((), ["acme/a", "acme/pool/b", "globex/a"]),
        ((view("acme", "a", BreakerState.OPEN),), ["acme/pool/b", "globex/a"]),
        ((view("acme", "pool/b", BreakerState.HALF_OPEN),), ["acme/a", "globex/a"]),
        ((view("globex", "a", BreakerState.CLOSED),), ["acme/a", "acme/pool/b", "globex/a"]),
    ],
)
async def test_what_is_not_open_is_over(views: tuple[BreakerView, ...], over: list[str]) -> None:
    """Open and half open go on, by tenant and provider; closed and gone are over; extensions are not looked at."""
    room, alerts = Room(*views), RecordedAlerts()
    await BreakerEpisodes(room, room, alerts, may_work=lambda: True).poll()
    assert (alerts.resolved, alerts.open, alerts.events) == (over, set(), [])

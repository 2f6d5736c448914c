"""`ports.policies.LeverStore` and `ports.audit.ActLog` on Redis.

Each act is one script call, which writes the change and its audit record together.
"""

from collections.abc import Mapping
from secrets import token_bytes
from typing import Any

from router.domain.audit.records import Actor
from router.domain.levers import ActOutcome, Lever
from router.domain.policy.model import provider_entry
from router.domain.tasks.task import Action
from router.store.audit.admin_records import KEEP_MS, Detail, packed_act
from router.store.keys import Keys
from router.store.scripts.load import Script, load
from router.store.servers.nodes import Nodes
from router.store.servers.replicas import Replicas

MAX_LEVERS = 256
_RECORD = ("action", "features", "keep_ms")
_ACT = ("action", "features", "max_records", "keep_ms")
_PULLED = {
    ActOutcome.CHANGED.value: "changed",
    ActOutcome.UNCHANGED.value: "unchanged",
    ActOutcome.UNKNOWN_TENANT.value: "unknown",
}
_RETURNS = _PULLED | {ActOutcome.FULL.value: "full"}
_ACTIONS = {
    (Lever.DRAINED, True): Action.PROVIDER_DRAINED,
    (Lever.DRAINED, False): Action.PROVIDER_ENABLED,
    (Lever.FORCED_OPEN, True): Action.BREAKER_FORCED,
}


def lever_scripts(**options: Any) -> dict[str, Script]:
    """Load the scripts and check their headers against this module's calls; options as in `scripts.load`."""
    scripts = (
        load(
            "set_lever",
            keys=("head", "audit"),
            argv=("lever", "on", "max_levers", "random", *_RECORD),
            returns=_RETURNS,
            **options,
        ),
        load("switch_tenant", keys=("head", "audit"), argv=("off", "random", *_RECORD), returns=_PULLED, **options),
        load(
            "reset_breaker",
            keys=("head", "state", "audit"),
            argv=("provider", "random", *_RECORD),
            returns=_PULLED,
            **options,
        ),
        load("forget_request", keys=("head", "idem", "audit"), argv=_RECORD, returns=_PULLED, **options),
        load("record_act", keys=("acts",), argv=_ACT, returns={0: "recorded"}, **options),
    )
    return {script.name: script for script in scripts}


class RedisLevers:
    """Changes levers; the ports have the promises.

    Audit records are kept for at least `audit_ms`; the log of acts of no tenant has at most `audit_max_len` entries.
    """

    def __init__(
        self,
        keys: Keys,
        nodes: Nodes,
        scripts: Mapping[str, Script],
        *,
        audit_max_len: int = 100_000,
        audit_ms: int = KEEP_MS,
        replicas: Replicas | None = None,
    ) -> None:
        self._keys = keys
        self._nodes = nodes
        self._replicas = replicas or Replicas(nodes)
        self._audit_max_len = audit_max_len
        self._audit_ms = audit_ms
        self._scripts = scripts

    async def drain(self, tenant_id: str, *, provider: str, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """See `ports.policies.LeverStore.drain`."""
        return await self._set(
            tenant_id, provider=provider, lever=Lever.DRAINED, on=on, features=_features(by, provider, why)
        )

    async def force_open(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """See `ports.policies.LeverStore.force_open`."""
        features = _features(by, provider, why, state="open")
        return await self._set(tenant_id, provider=provider, lever=Lever.FORCED_OPEN, on=True, features=features)

    async def _set(self, tenant_id: str, *, provider: str, lever: Lever, on: bool, features: bytes) -> ActOutcome:
        keys = self._keys.tenant(tenant_id)
        name = provider_entry(provider) + bytes((lever,))
        args = (name, int(on), MAX_LEVERS, token_bytes(4), _ACTIONS[lever, on].value, features, self._audit_ms)
        return await self._run("set_lever", (keys.head, keys.audit), args)

    async def reset_breaker(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """See `ports.policies.LeverStore.reset_breaker`."""
        keys = self._keys.tenant(tenant_id)
        features = _features(by, provider, why, state="closed")
        args = (provider_entry(provider), token_bytes(4), Action.BREAKER_FORCED.value, features, self._audit_ms)
        return await self._run("reset_breaker", (keys.head, keys.state, keys.audit), args)

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """See `ports.policies.LeverStore.switch`."""
        keys = self._keys.tenant(tenant_id)
        action = Action.TENANT_ENABLED if on else Action.TENANT_DISABLED
        features = packed_act(by, resource_type="tenant", resource_id=tenant_id, **_reason(why))
        args = (int(not on), token_bytes(4), action.value, features, self._audit_ms)
        return await self._run("switch_tenant", (keys.head, keys.audit), args)

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> ActOutcome:
        """See `ports.policies.LeverStore.forget`."""
        keys = self._keys.tenant(tenant_id)
        field, value = called
        details = {"act": "forget_idempotency_key", field: value, **_reason(why)}
        features = packed_act(by, resource_type="request", resource_id=value, **details)
        args = (Action.ROLE_USED.value, features, self._audit_ms)
        return await self._run("forget_request", (keys.head, keys.idem(name), keys.audit), args)

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """See `ports.policies.LeverStore.role_used`."""
        await self.record(
            action=Action.ROLE_USED,
            by=by,
            resource_type="tenant",
            resource_id=tenant_id,
            details={"act": act, "outcome": outcome},
        )

    async def record(
        self, action: Action, by: Actor, resource_type: str, resource_id: str | None, details: Mapping[str, Detail]
    ) -> None:
        """See `ports.audit.ActLog.record`."""
        features = packed_act(by, resource_type=resource_type, resource_id=resource_id, **details)
        args = (action.value, features, self._audit_max_len, self._audit_ms)
        await self._nodes.run(self._scripts["record_act"], (self._keys.acts,), args)

    async def _run(self, script: str, keys: tuple[bytes, ...], args: tuple[bytes | str | int, ...]) -> ActOutcome:
        reply = await self._replicas.run(self._scripts[script], keys, args)
        return ActOutcome(reply[0])


def _reason(why: str | None) -> dict[str, Detail]:
    return {} if why is None else {"why": why}


def _features(by: Actor, provider: str, why: str | None, **details: Detail) -> bytes:
    return packed_act(by, resource_type="provider", resource_id=provider, **details, **_reason(why))

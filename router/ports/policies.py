"""Policies: the store, the cache in each pod, and the levers of operators.

The store keeps the policies of each tenant with a revision, which grows with every write. Each tenant also has a stamp,
which changes with every write of its policies and levers. Every decide row returns the current stamp, so a pod whose
cache has a different one reloads the tenant. Announcements only make this faster; a lost one does no harm.
"""

import asyncio
from enum import StrEnum
from typing import Protocol

from router.domain.audit.records import ROUTER, Actor
from router.domain.levers import ActOutcome
from router.domain.policy.model import TenantPolicies


class LeverStore(Protocol):
    """The levers of operators.

    Every act is atomic with its audit record, idempotent, and in force from the next decision of every pod. Only acts
    that change something are recorded. `why` is the operator's own text for the record. Policy writes do not change
    levers. Every method raises `StoreError` when Redis did not answer.
    """

    async def drain(self, tenant_id: str, *, provider: str, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """Exclude a provider from every candidate walk of this tenant, or (`on` False) admit it again."""

    async def force_open(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """Hold a provider's breaker open, whatever its results are, until `reset_breaker`."""

    async def reset_breaker(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """Close a breaker and clear its counts, even if an operator holds it open."""

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """Switch a tenant on or off. While it is off, new requests are refused and running tasks continue."""

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> ActOutcome:
        """Delete the answer that is stored under an idempotency name.

        `called` is the field and the value by which the operator named the request, for the record.
        """

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """Record the use of a role on the admin surface, in the log of acts that belong to no tenant."""


class PolicyStore(Protocol):
    """The stored policies of all tenants, with their revisions."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Return all policies of a tenant as of one moment; None if it has none.

        :raises StoreError: Redis did not answer.
        """

    async def apply(
        self,
        tenant_id: str,
        *,
        policy_id: str,
        document: bytes,
        expect_revision: int | None,
        expect_tenant: int | None = None,
        by: Actor = ROUTER,
        restores: int | None = None,
    ) -> int:
        """Write a canonical policy document, its audit record and its history in one act. Returns the new revision.

        `expect_revision` None: write unconditionally; 0: only if the policy does not exist; n: only if it is at
        revision n. `expect_tenant`: only if the tenant is at this revision. `restores`: the revision whose content this
        is; the act is then recorded as a rollback.

        :raises RevisionConflict: an expectation did not hold; nothing was written.
        :raises QuotaExceeded: the tenant has as many policies as its quota allows; nothing was written.
        :raises StoreError: Redis did not answer.
        """

    async def delete(self, tenant_id: str, *, policy_id: str, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """Delete a policy and write the audit record in one act. Returns the tenant's new revision.

        The revision grows with deletes too. `expect_revision` as in `apply`.

        :raises RevisionConflict: the expectation did not hold, or the policy does not exist.
        :raises StoreError: Redis did not answer.
        """


class Loading:
    """The type of `LOADING`."""


LOADING = Loading()
"""The tenant's policies are not in the cache, and it is unknown whether the tenant has any."""


class PolicyLookup(Protocol):
    """The compiled policies that this pod has in memory, by tenant."""

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """Return the cached policies; None if the tenant has none; `LOADING` if `load` must be called first."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Read the tenant's policies from the store. Concurrent loads of one tenant share one read.

        :raises LoadsFull: too many tenants wait for their policies.
        :raises StoreError: the store did not answer, and nothing is cached.
        """


class Policies(PolicyLookup, Protocol):
    """The policy cache as the decide path uses it."""

    def may_be_outdated(self, tenant_id: str) -> bool:
        """Return whether the cached policies are too old to prove that a policy does not exist.

        If so, call `load` before refusing a request for a missing policy.
        """

    def begin_load(self, tenant_id: str) -> "asyncio.Future[TenantPolicies | None]":
        """Start the load that `load` awaits, without a task. All callers share the future, so do not cancel it.

        :raises LoadsFull: too many tenants wait for their policies. The future may raise `StoreError`.
        """

    def observe(self, tenant_id: str, stamp: bytes) -> None:
        """Compare the stamp of a store reply with the cached one. If they differ, a reload starts."""


class Cause(StrEnum):
    """Why policies are loaded; the label of the reload counter."""

    ASKED = "asked"
    EXPIRED = "expired"
    STAMP = "stamp"
    ANNOUNCED = "announced"


class Loader(Protocol):
    """The source from which the cache loads; see `ports.policies.PolicyStore.load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Return all policies of a tenant as of one moment; None if it has none.

        :raises StoreError: Redis did not answer.
        """


class CacheHooks(Protocol):
    """Receives the events of the cache, on the event loop. Implementations must be quick and must not raise."""

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """A load succeeded. `found` None: the tenant has no policies."""

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed. Policies that were cached before stay in use."""

    def cached(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision; None: it has left the cache."""

    def head_missing(self, tenant_id: str) -> None:
        """The store has no head for a tenant that had policies, so it may have lost its data."""


class Announcer(Protocol):
    """Announces policy changes to all pods, this pod included."""

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Send an announcement, at most once. Never raises.

        The store already holds the change. A pod that misses the announcement finds out by the stamp.
        """


class PolicyReader(Protocol):
    """Reads a tenant's policies; see `ports.policies.PolicyStore.load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Return all policies of a tenant as of one moment; None if it has none.

        :raises StoreError: Redis did not answer.
        """

"""Policies and the operators' levers."""

from typing import Protocol

from router.domain.audit import ROUTER, Actor
from router.domain.policy.model import TenantPolicies
from router.domain.view import Pulled


class LeverStore(Protocol):
    """Operators' acts: in force with the next decision of every pod, recorded in the same act, idempotent.

    `why` is the operator's own words, for the record. Only what changes something is recorded. All raise `StoreError`
    when Redis did not answer. Policies may be written meanwhile: levers stay.
    """

    async def drain(self, tenant_id: str, provider: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Take a provider out of every walk of this tenant, or (`on` False) let it in again."""

    async def force_open(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Hold a provider's breaker open, whatever its results say."""

    async def reset_breaker(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Close a breaker and forget what it has counted, also one that is held open."""

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Switch a tenant off or on: nothing new is decided for one that is off; tasks that run go on."""

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> Pulled:
        """Forget the answer under an idempotency name; `called`: field and value that named it, for the record."""

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """Record that a role was used on the admin surface, in the log that belongs to no tenant."""


class PolicyStore(Protocol):
    """Policies of all tenants, with revisions."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """All policies of a tenant at one moment; None when it has none.

        :raises StoreError: Redis did not answer.
        """

    async def apply(
        self,
        tenant_id: str,
        policy_id: str,
        document: bytes,
        *,
        expect_revision: int | None,
        expect_tenant: int | None = None,
        by: Actor = ROUTER,
        restores: int | None = None,
    ) -> int:
        """Write a canonical policy document and, in the same act, audit record and history; returns the new revision.

        `expect_revision` None: whatever is there; 0: only if the policy is absent; n: only if it is at revision n.
        `expect_tenant`: only if the tenant is at this revision. `restores`: the revision whose content this is: it is
        recorded as a roll-back.

        :raises RevisionConflict: an expectation did not hold; nothing was written.
        :raises QuotaExceeded: the tenant has as many policies as it may have.
        :raises StoreError: Redis did not answer.
        """

    async def delete(self, tenant_id: str, policy_id: str, *, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """Remove a policy, recorded in the same act; returns the tenant's new revision (it grows over deletes too).

        :raises RevisionConflict: the expectation did not hold, or there is no such policy.
        :raises StoreError: Redis did not answer.
        """

"""Policies in the store and in process, and the operators' levers."""

from enum import StrEnum
from typing import Protocol

from router.domain.audit import ROUTER, Actor
from router.domain.policy.model import TenantPolicies
from router.domain.view import Pulled


class LeverStore(Protocol):
    """The levers of operators: in force with the next decision of every pod, audited in the same act, idempotent.

    `why` is the operator's own text, for the record. Only acts that change something are recorded. All raise
    `StoreError` when Redis did not answer. Writing policies leaves levers as they are.
    """

    async def drain(self, tenant_id: str, provider: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Take a provider out of every candidate walk of this tenant, or (`on` False) let it in again."""

    async def force_open(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Hold a provider's breaker open, whatever its results are."""

    async def reset_breaker(self, tenant_id: str, provider: str, *, by: Actor, why: str | None = None) -> Pulled:
        """Close a breaker and clear its counts, also one that is held open."""

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> Pulled:
        """Switch a tenant off or on. Off: new requests are refused, running tasks continue."""

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> Pulled:
        """Forget the answer under an idempotency name. `called`: the field and value that named it, for the record."""

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """Record the use of a role on the admin surface, in the log that belongs to no tenant."""


class PolicyStore(Protocol):
    """The stored policies of all tenants, with revisions."""

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
        """Write a canonical policy document, its audit record and its history in one act. Returns the new revision.

        `expect_revision` None: whatever is stored; 0: only if the policy is absent; n: only if it is at revision n.
        `expect_tenant`: only if the tenant is at this revision. `restores`: the revision whose content this is; the act
        is then recorded as a roll-back.

        :raises RevisionConflict: an expectation did not hold; nothing was written.
        :raises QuotaExceeded: the tenant already has as many policies as it may have.
        :raises StoreError: Redis did not answer.
        """

    async def delete(self, tenant_id: str, policy_id: str, *, expect_revision: int | None, by: Actor = ROUTER) -> int:
        """Delete a policy, audited in the same act. Returns the tenant's new revision, which grows over deletes too.

        :raises RevisionConflict: the expectation did not hold, or there is no such policy.
        :raises StoreError: Redis did not answer.
        """


class Loading:
    """The type of `LOADING`: the tenant's policies are not known yet."""


LOADING = Loading()


class PolicyLookup(Protocol):
    """Policies in process, by tenant."""

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """The cached policies; None: the tenant is known to have none; `LOADING`: call `load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """Read them from the store; concurrent loads of one tenant share a read.

        :raises StoreError: the store did not answer and nothing is cached.
        """


class Policies(PolicyLookup, Protocol):
    """The policy cache as the decide path uses it."""

    def doubtful(self, tenant_id: str) -> bool:
        """Whether the cached policies are too old to prove that a policy is absent; then call `load` first."""

    def observe(self, tenant_id: str, stamp: bytes) -> None:
        """The stamp from a reply of the store. If it differs from the cached one, a reload starts."""


class Cause(StrEnum):
    """Why policies are loaded: the label of the reload counter."""

    ASKED = "asked"
    EXPIRED = "expired"
    STAMP = "stamp"
    ANNOUNCED = "announced"


class Loader(Protocol):
    """The source of the cache; see `ports.policies.PolicyStore.load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """All policies of a tenant at one moment; None when it has none.

        :raises StoreError: Redis did not answer.
        """


class CacheHooks(Protocol):
    """Events of the cache. Called on the event loop; must be quick and must not raise."""

    def loaded(self, cause: Cause, found: TenantPolicies | None) -> None:
        """A load succeeded."""

    def failed(self, tenant_id: str, why: str) -> None:
        """A load failed; the last good policies stay, if there are any."""

    def kept(self, tenant_id: str, revision: int | None) -> None:
        """The tenant is cached at this revision; None: it is not cached any more."""

    def head_missing(self, tenant_id: str) -> None:
        """The store has no head for a tenant that had policies: it may have lost its data."""


class Announcer(Protocol):
    """Announces policy changes to all pods, this one included."""

    def policy_changed(self, tenant_id: str, revision: int) -> None:
        """Send a hint, at most once. Never raises: the store is written already, and pods that miss it notice by the
        stamp.
        """


class PolicyReader(Protocol):
    """Reads a tenant's policies; see `ports.policies.PolicyStore.load`."""

    async def load(self, tenant_id: str) -> TenantPolicies | None:
        """All policies of a tenant."""

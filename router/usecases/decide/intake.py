"""Before a request is planned: whether this fleet takes it, and under what it is decided; if not, the refusal."""

from msgspec import Struct

from router.domain.decision import Code, Intake, Refused
from router.domain.gate import REQUIRED_CP
from router.domain.plan import Deadlines, Features
from router.domain.policy.model import OnStoreError, Policy, TenantPolicies
from router.domain.request import DecideRequest
from router.wire.fields import whole
from router.wire.problems import Problems


class DecideSettings(Struct, frozen=True):
    """What the fleet's settings say about deciding."""

    max_in_flight: int = 1024
    strict_correlation: bool = False
    legacy_error_codes: bool = False
    allowed_tenants: frozenset[str] = frozenset()
    baseline_tenant: str = "default"
    on_store_error: OnStoreError = OnStoreError.DENY
    deadlines: Deadlines = Deadlines()
    deadline_max_ms: int = 1_800_000
    result_subject_prefixes: tuple[str, ...] = ()


def forbidden(request: DecideRequest, features: Features, s: DecideSettings) -> Refused | None:
    """Why this fleet does not take the request at all; None: it does."""
    tenant_id = request.tenant_id
    if s.allowed_tenants and tenant_id not in s.allowed_tenants:
        return Refused(
            Code.UNAUTHORIZED,
            "this tenant is not allowed here",
            {"intake_error_code": Intake.TENANT_FORBIDDEN.value, "tenant_id": tenant_id},
        )
    if not features.multi_tenant and tenant_id != s.baseline_tenant:
        return Refused(
            Code.UNAUTHORIZED,
            f"only the tenant {s.baseline_tenant} is served in the CP1 baseline",
            {"requires_cp": REQUIRED_CP, "tenant_id": tenant_id},
        )
    return None


def overlong(request: DecideRequest, s: DecideSettings) -> Refused | None:
    """The refusal of a deadline above the fleet's bound, for a request that was decoded without one."""
    found = Problems()
    whole(found, "options.deadline_ms", request.options.deadline_ms, 1, s.deadline_max_ms)
    return found.rejected().refused if found else None


def store_away(request: DecideRequest) -> Refused:
    """The tenant's policies could not be loaded."""
    return Refused(
        Code.UNAVAILABLE,
        "the store is away and the tenant's policies are not known yet",
        {"retry_after_ms": 500, "tenant_id": request.tenant_id},
    )


def no_policy(request: DecideRequest, known: TenantPolicies | None) -> Refused:
    """The tenant has none of that name; None: it has none at all."""
    if known is None:
        message = f"tenant {request.tenant_id} has no policy: apply one with `router policy apply`"
    else:
        message = f"tenant {request.tenant_id} has no policy {request.policy_id}"
    return Refused(Code.POLICY_NOT_FOUND, message, {"tenant_id": request.tenant_id, "policy_id": request.policy_id})


def extensions_gated(policy: Policy, features: Features) -> Refused | None:
    """A policy that may not be answered without its extensions is refused rather than answered without them."""
    if features.extensions or not policy.needs_extensions:
        return None
    return Refused(Code.EXTENSION_UNAVAILABLE, "the policy requires extensions", {"requires_cp": REQUIRED_CP})

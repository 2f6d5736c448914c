"""Checks before a request is planned, each with its refusal: tenant, gate, deadline, policy."""

from msgspec import Struct

from router.domain.decide.decision import Code, Intake, Refused
from router.domain.decide.plan import Deadlines
from router.domain.decide.request import DecideRequest
from router.domain.gate import REQUIRED_CP, Features
from router.domain.policy.model import Policy, TenantPolicies
from router.domain.policy.vocabulary import OnStoreError
from router.wire.fields import whole_number
from router.wire.problems import Problems
from router.wire.subjects import INBOX


class DecideSettings(Struct, frozen=True):
    """The fleet's settings for deciding. `wait_s`: how long a request may wait for the store in all."""

    max_in_flight: int = 1024
    wait_s: float = 0.2
    strict_correlation: bool = False
    legacy_error_codes: bool = False
    allowed_tenants: frozenset[str] = frozenset()
    baseline_tenant: str = "default"
    on_store_error: OnStoreError = OnStoreError.DENY
    deadlines: Deadlines = Deadlines()
    deadline_max_ms: int = 1_800_000
    result_subject_prefixes: tuple[str, ...] = (INBOX,)


def forbidden(request: DecideRequest, features: Features, s: DecideSettings) -> Refused | None:
    """Refuse a tenant that this fleet does not serve; None: it does."""
    tenant_id = request.tenant_id
    if s.allowed_tenants and tenant_id not in s.allowed_tenants:
        return Refused(
            Code.UNAUTHORIZED,
            "this fleet does not serve the tenant",
            {"intake_error_code": Intake.TENANT_FORBIDDEN.value, "tenant_id": tenant_id},
        )
    if not features.multi_tenant and tenant_id != s.baseline_tenant:
        return Refused(
            Code.UNAUTHORIZED,
            f"the fleet is in the CP1 baseline, which serves only the tenant {s.baseline_tenant}",
            {"requires_cp": REQUIRED_CP, "tenant_id": tenant_id},
        )
    return None


def overlong(request: DecideRequest, s: DecideSettings) -> Refused | None:
    """Refuse a deadline above the fleet's bound. For a request that was decoded without that bound."""
    problems = Problems()
    whole_number(problems, "options.deadline_ms", request.options.deadline_ms, minimum=1, maximum=s.deadline_max_ms)
    return problems.rejected().refused if problems else None


def store_unavailable(request: DecideRequest) -> Refused:
    """Refuse: the tenant's policies could not be loaded."""
    return Refused(
        Code.UNAVAILABLE,
        "the store is unavailable and the tenant's policies are not cached",
        {"retry_after_ms": 500, "tenant_id": request.tenant_id},
    )


def no_policy(request: DecideRequest, policies: TenantPolicies | None) -> Refused:
    """Refuse: the tenant has no policy of that id. `policies` None: it has no policy at all."""
    if policies is None:
        message = f"tenant {request.tenant_id} has no policy: apply one with `router policy apply`"
    else:
        message = f"tenant {request.tenant_id} has no policy {request.policy_id}"
    return Refused(Code.POLICY_NOT_FOUND, message, {"tenant_id": request.tenant_id, "policy_id": request.policy_id})


def extensions_gated(policy: Policy, features: Features) -> Refused | None:
    """Refuse a policy that needs extensions while the gate does not allow them; None: allowed, or not needed."""
    if features.extensions or not policy.needs_extensions:
        return None
    return Refused(Code.EXTENSION_UNAVAILABLE, "the policy requires extensions", {"requires_cp": REQUIRED_CP})

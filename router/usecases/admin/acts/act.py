"""What an admin act is, what acts use, and the fields that several acts have.

A function reads its fields from the body, checks all of them at once, and returns the reply. It may raise what its use
cases raise; `admin.Admin` turns these errors into refusals.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from router.domain.audit.records import Actor
from router.domain.decide.decision import Refused
from router.domain.json import JsonObject
from router.domain.roles import Role
from router.ports.extensions import ExtensionStore
from router.ports.policies import Policies
from router.ports.tenants import Inspector, TenantStore
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.overrides import OverrideService
from router.usecases.admin.purge import Purger
from router.usecases.decide.dry_run import DryRunner
from router.usecases.policies.publish import PolicyPublisher

Answer = JsonObject | Refused


class AdminServices(Struct, frozen=True):
    """What acts use. `overrides`, `publisher` and `purger` return a service that acts on behalf of an actor."""

    policies: Policies
    inspector: Inspector
    extensions: ExtensionStore
    tenants: TenantStore
    dry_run: DryRunner
    overrides: Callable[[Actor], OverrideService]
    publisher: Callable[[Actor], PolicyPublisher]
    purger: Callable[[Actor], Purger]


class Act(Struct, frozen=True):
    """One admin act. `fields` are the body's fields; `run` may read no others.

    `may_be_open`: the act only reads, and needs no token if ROUTER_ADMIN_NATS_READ is `open`.
    """

    name: str
    role: Role
    fields: tuple[str, ...]
    run: Callable[[AdminServices, ActFields, Actor], Awaitable[Answer]]
    may_be_open: bool = False


PAGE = ("cursor", "limit")
POLICY = ("tenant_id", "policy_id")
LEVER = ("tenant_id", "provider_id", "why")
SWITCH = ("tenant_id", "why")
WRITE = ("expect_revision", "dry_run")

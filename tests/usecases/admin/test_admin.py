"""Who may do which admin act: every act by every role, over levers in memory."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from router.domain.audit.records import Actor
from router.domain.decide.decision import Answer, Decided, Decision, Reason
from router.domain.decide.request import DecideRequest
from router.domain.levers import ActOutcome, BreakerState, BreakerView, TenantHead
from router.domain.policy.model import StoredPolicy, provider_entry
from router.domain.roles import Role
from router.domain.tasks.task import Action
from router.errors import StoreUnavailable
from router.ports.tenants import KindCensus, Purged, TenantContents
from router.store.tenants.names import in_order
from router.telemetry import Telemetry
from router.usecases.admin.access import AdminTokens
from router.usecases.admin.act_fields import ActFields
from router.usecases.admin.acts import ACTS
from router.usecases.admin.acts.act import Act, AdminServices
from router.usecases.admin.admin import Admin
from router.usecases.admin.overrides import OverrideService
from router.usecases.admin.purge import Purger
from router.usecases.admin.reads import ReadBounds, Reads
from router.usecases.policies.cache import PolicyCache
from router.usecases.policies.publish import PolicyPublisher
from tests.usecases.fakes.extensions import Records
from tests.usecases.fakes.policies import ONE, HeardCache, HeardSeed, MemoryPolicies

SECRETS = {role: f"secret-of-the-{role.label}-00" for role in Role}
SECRET_OF_DORA = "secret-of-dora-00000"  # noqa: S105 - of these tests only
READINGS = ("get_circuit_breaker_states", "get_extension_health", "dry_run_pipeline", "get_pipeline_complexity")
NEEDED = dict.fromkeys(READINGS, Role.VIEWER) | {
    "list_tenants": Role.VIEWER,
    "list_providers": Role.VIEWER,
    "list_policies": Role.VIEWER,
    "get_policy": Role.VIEWER,
    "show_tenant": Role.VIEWER,
    "drain_provider": Role.OPERATOR,
    "enable_provider": Role.OPERATOR,
    "force_open_breaker": Role.OPERATOR,
    "reset_breaker": Role.OPERATOR,
    "disable_tenant": Role.OPERATOR,
    "enable_tenant": Role.OPERATOR,
    "forget_idempotency_key": Role.OPERATOR,
    "upsert_policy": Role.ADMIN,
    "delete_policy": Role.ADMIN,
    "rollback_policy": Role.ADMIN,
    "purge_tenant": Role.ADMIN,
}
BODY = {
    "tenant_id": "acme",
    "policy_id": "default",
    "provider_id": "a",
    "request_id": "r",
    "revision": 1,
    "confirm": "acme",
    "why": "because",
    "policy": {"version": "1.0", "providers": [{"name": "b", "weight": 100}]},
}


class MemoryLevers:
    """`LeverStore` and `Inspector` of one tenant; `done` is who did what, `roles` what was recorded of roles."""

    def __init__(self) -> None:
        self.head = TenantHead("acme", 1, off=False)
        self.done: list[tuple[str, Actor]] = []
        self.roles: list[tuple[Actor, str, str | None, str]] = []
        self.views: list[BreakerView] = []
        self.away = False
        self.reads = 0
        self.pages: list[str] = []

    async def drain(self, tenant_id: str, *, provider: str, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """Remember."""
        return self._pulled(f"drain {provider} {on}", by)

    async def force_open(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """Remember."""
        return self._pulled(f"force {provider}", by)

    async def reset_breaker(self, tenant_id: str, *, provider: str, by: Actor, why: str | None = None) -> ActOutcome:
        """Remember."""
        return self._pulled(f"reset {provider}", by)

    async def switch(self, tenant_id: str, *, on: bool, by: Actor, why: str | None = None) -> ActOutcome:
        """Remember."""
        return self._pulled(f"switch {on}", by)

    async def forget(
        self, tenant_id: str, name: bytes, *, called: tuple[str, str], by: Actor, why: str | None = None
    ) -> ActOutcome:
        """Remember."""
        return self._pulled(f"forget {called}", by)

    async def role_used(self, by: Actor, act: str, tenant_id: str | None, outcome: str) -> None:
        """Remember."""
        if self.away:
            raise StoreUnavailable("away")
        self.roles.append((by, act, tenant_id, outcome))

    async def breakers(self, tenant_id: str) -> list[BreakerView]:
        """What the test says."""
        self.reads += 1
        return [v for v in self.views if v.tenant_id == tenant_id]

    async def all_breakers(self, after: str = "") -> AsyncIterator[list[BreakerView]]:
        """One tenant a page."""
        self.reads += 1
        for tenant in sorted({v.tenant_id for v in self.views}, key=in_order):
            if in_order(tenant) >= in_order(after):
                self.pages.append(tenant)
                yield [v for v in self.views if v.tenant_id == tenant]

    async def heads(self, tenant_id: str | None = None) -> list[TenantHead]:
        """The one there is."""
        self.reads += 1
        return [self.head] if tenant_id in (None, "acme") else []

    def _pulled(self, what: str, by: Actor) -> ActOutcome:
        self.done.append((what, by))
        return ActOutcome.CHANGED


async def _dry_run(_request: DecideRequest, stored: StoredPolicy) -> Answer:
    """It would be a."""
    return Decided(Decision("a", Reason.WEIGHTED, 0, 0, stored.policy_id, stored.revision, "id"), explain={})


class MemoryTenants:
    """`TenantStore` and `ActLog` of a tenant with one key; `purged` counts the purges that removed it."""

    def __init__(self) -> None:
        self.purged = 0

    async def contents(self, tenant_id: str) -> TenantContents:
        """One key."""
        return TenantContents(
            [KindCensus(kind="head", keys=1, size_bytes=100)], audit_entries=0, open_tasks={}, whole=True
        )

    async def end(self, tenant_id: str, *, keep_ms: int) -> int | None:
        """It is unknown already."""
        return None

    async def purge(self, tenant_id: str, *, dry_run: bool) -> Purged:
        """Remove the key at the first purge."""
        first = not self.purged
        self.purged += not dry_run
        return Purged({"head": 1} if first else {}, answers_may_remain=False)

    async def record(
        self,
        action: Action,
        by: Actor,
        resource_type: str,
        resource_id: str | None,
        details: Mapping[str, str | int | bool],
    ) -> None:
        """Nothing reads it here."""


class Surface:
    """The admin acts over fakes."""

    def __init__(self, *, open_reading: bool = False, bounds: ReadBounds | None = None) -> None:
        self.now = 1000.0
        self.levers = MemoryLevers()
        self.store = MemoryPolicies()
        self.tenants = MemoryTenants()
        tokens = [(role.label, role, token) for role, token in SECRETS.items()]
        self.services = AdminServices(
            policies=PolicyCache(self.store, HeardCache(), clock=lambda: 0.0),
            inspector=self.levers,
            extensions=Records(),
            tenants=self.tenants,
            dry_run=_dry_run,
            overrides=lambda by: OverrideService(self.levers, self.levers, self.store, by),
            publisher=lambda by: PolicyPublisher(self.store, HeardSeed(), by),
            purger=lambda by: Purger(self.tenants, self.tenants, HeardSeed(), by, forget_ms=1),
        )
        self.telemetry = Telemetry(CollectorRegistry())
        self.admin = Admin(
            self.services,
            AdminTokens([*tokens, ("dora", Role.OPERATOR, SECRET_OF_DORA)], open_reading=open_reading),
            self.levers,
            self.telemetry,
            reads=Reads(bounds or ReadBounds(per_s=1e6), lambda: self.now, self.telemetry.admin_reads_shared.inc),
        )

    async def act(self, name: str, token: str | None = None, body: Any = BODY, **headers: str) -> dict[str, Any]:
        """The reply."""
        bearer = {} if token is None else {"authorization": f"Bearer {token}"}
        reply, _ = await self.admin(orjson.dumps(body), bearer | headers, f"beamline.router.v1.admin.{name}")
        found: dict[str, Any] = orjson.loads(reply)
        return found


@pytest.fixture
async def surface() -> Surface:
    """Tenant acme with provider a; reading asks for a token."""
    surface = Surface()
    await surface.store.apply("acme", policy_id="default", document=ONE, expect_revision=0)
    return surface


def matrix() -> Iterator[tuple[str, Role | None, bool]]:
    """Every act by nobody and by every role, and whether it is allowed."""
    for act, needed in NEEDED.items():
        for role in (None, *Role):
            yield act, role, role is not None and role >= needed


@pytest.mark.parametrize(("act", "role", "allowed"), list(matrix()))
async def test_who_may_do_what(surface: Surface, act: str, role: Role | None, allowed: bool) -> None:
    """The role decides, and what is refused changes nothing."""
    writes = surface.store.writes
    reply = await surface.act(act, None if role is None else SECRETS[role])
    if allowed:
        assert reply["ok"] is True, reply
    else:
        assert reply["error"]["code"] == "unauthorized"
        assert surface.levers.done == []
        assert surface.store.writes == writes
        assert surface.tenants.purged == 0


async def test_the_matrix_names_every_act(surface: Surface) -> None:
    """An act that is added must be added here."""
    message = (await surface.act("nothing", SECRETS[Role.VIEWER]))["error"]["message"]
    assert set(message.partition("there are ")[2].split(", ")) == set(NEEDED)


class ReadFields(dict[str, Any]):
    """A body that notes which fields are read."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.read: set[str] = set()

    def get(self, field: str, default: Any = None) -> Any:
        """Note it."""
        self.read.add(field)
        return super().get(field, default)


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_an_act_reads_the_fields_that_it_declares(surface: Surface, act: Act) -> None:
    """The reference is made of the declared fields. A dry run decodes its payload with the whole request."""
    body = ReadFields(BODY)
    await act.run(surface.services, ActFields(body, act.fields), Actor(principal="dora"))
    assert body.read | ({"payload"} if act.name == "dry_run_pipeline" else set()) == set(act.fields)


def test_a_field_that_is_not_declared_cannot_be_read() -> None:
    """A bug, whatever the body holds."""
    with pytest.raises(KeyError, match="does not declare the field why"):
        ActFields({"why": "because"}, ("tenant_id",)).text("why")


@pytest.mark.parametrize("act", NEEDED)
async def test_open_reading_opens_only_the_four(act: str) -> None:
    """ROUTER_ADMIN_NATS_READ=open is for clients that send no headers; all else asks for a token still."""
    surface = Surface(open_reading=True)
    await surface.store.apply("acme", policy_id="default", document=ONE, expect_revision=0)
    assert (await surface.act(act))["ok"] is (act in READINGS)


@pytest.mark.parametrize("token", ["", "secret-of-the-admin-0", SECRETS[Role.ADMIN] + "0", "Ü" * 20, "\udcff" * 20])
async def test_a_token_that_is_nearly_right_is_wrong(surface: Surface, token: str) -> None:
    """Shorter, longer, foreign: refused alike."""
    assert (await surface.act("drain_provider", token))["error"]["code"] == "unauthorized"


async def test_an_act_is_done_in_the_name_of_its_principal(surface: Surface) -> None:
    """Principal, role and trace go with the act, and what the role was used for is recorded."""
    assert (await surface.act("drain_provider", SECRET_OF_DORA, trace_id="trace-9")) == {"ok": True, "changed": True}
    dora = Actor(principal="dora", role="operator", trace_id="trace-9")
    assert surface.levers.done == [("drain a True", dora)]
    assert surface.levers.roles == [(dora, "drain_provider", "acme", "done")]


async def test_a_role_that_is_too_low_is_recorded(surface: Surface) -> None:
    """The refusal says which role it needs; the record who tried."""
    error = (await surface.act("upsert_policy", SECRET_OF_DORA))["error"]
    assert error["details"] == {"role": "operator", "needs_role": "admin"}
    assert surface.levers.roles == [(Actor(principal="dora", role="operator"), "upsert_policy", "acme", "forbidden")]


async def test_nobody_is_not_recorded_but_counted(surface: Surface) -> None:
    """A flood of wrong tokens must not push out what others did."""
    await surface.act("drain_provider", "wrong-wrong-wrong-wrong")
    assert surface.levers.roles == []
    value = surface.telemetry.registry.get_sample_value
    assert value("router_admin_acts_total", {"act": "drain_provider", "outcome": "forbidden"}) == 1


async def test_a_record_that_cannot_be_written_does_not_lose_the_answer(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    """The act is done and said so; the log has what the audit has not."""
    surface.levers.away = True
    assert (await surface.act("drain_provider", SECRET_OF_DORA))["ok"] is True
    assert any(r.levelno == logging.ERROR and getattr(r, "principal", "") == "dora" for r in caplog.records)


async def test_unknown_names_are_told_with_those_there_are(surface: Surface) -> None:
    """In the form of every refusal."""
    token = SECRETS[Role.OPERATOR]
    provider = (await surface.act("drain_provider", token, BODY | {"provider_id": "x"}))["error"]
    assert (provider["code"], "there are a" in provider["message"]) == ("invalid_request", True)
    tenant = (await surface.act("list_providers", token, {"tenant_id": "nobody"}))["error"]
    assert "there is no tenant nobody (there are acme)" in tenant["message"]
    missing = (await surface.act("disable_tenant", token, {}))["error"]
    assert missing["details"]["problems"] == [{"path": "tenant_id", "message": "is missing", "hint": ""}]


async def test_every_mistake_of_a_body_is_told(surface: Surface) -> None:
    """At once, by their paths, and nothing is done."""
    body = {"tenant_id": "a b", "policy_id": 7, "policy": [], "expect_revision": "1", "dry_run": "true"}
    error = (await surface.act("upsert_policy", SECRETS[Role.ADMIN], body))["error"]
    assert [p["path"] for p in error["details"]["problems"]] == list(body)
    lever = (await surface.act("drain_provider", SECRETS[Role.ADMIN], {"why": 5}))["error"]
    assert [p["path"] for p in lever["details"]["problems"]] == ["tenant_id", "provider_id", "why"]
    assert surface.levers.done == []


@pytest.mark.parametrize("act", ["upsert_policy", "delete_policy", "rollback_policy"])
async def test_a_dry_run_in_other_words_is_not_taken_for_none(surface: Surface, act: str) -> None:
    """`"true"` for true: refused, where it would have been written."""
    writes = surface.store.writes
    error = (await surface.act(act, SECRETS[Role.ADMIN], BODY | {"dry_run": "true"}))["error"]
    assert [p["path"] for p in error["details"]["problems"]] == ["dry_run"]
    assert surface.store.writes == writes


@pytest.mark.parametrize("act", READINGS)
async def test_a_reading_of_what_can_be_no_tenant(surface: Surface, act: str) -> None:
    """Refused as a mistake, in the form of every refusal; the health of extensions is of no tenant."""
    reply = await surface.act(act, SECRETS[Role.VIEWER], BODY | {"tenant_id": "a b"})
    if act == "get_extension_health":
        assert reply["ok"] is True
    else:
        assert [p["path"] for p in reply["error"]["details"]["problems"]] == ["tenant_id"]


async def test_a_lever_without_a_policy_is_shown_by_its_entry(surface: Surface) -> None:
    """No policy names it any more: the entry stands for the name, so that it is not hidden."""
    surface.levers.head = TenantHead("acme", 1, off=True, drained=frozenset((provider_entry("gone"),)))
    reply = await surface.act("list_providers", SECRETS[Role.VIEWER])
    assert reply["disabled"] is True
    assert {(p["provider_id"], p["drained"]) for p in reply["providers"]} == {
        ("a", False),
        (provider_entry("gone").hex(), True),
    }


async def test_policies_are_written_and_read(surface: Surface) -> None:
    """Upsert against a revision, read back, delete; a lost race tells the revision that is there."""
    token = SECRETS[Role.ADMIN]
    done = await surface.act("upsert_policy", token, BODY | {"expect_revision": 1})
    assert (done["revision"], done["changed"]) == (2, True)
    lost = (await surface.act("upsert_policy", token, BODY | {"expect_revision": 1}))["error"]
    assert (lost["code"], lost["details"]) == ("invalid_request", {"current_revision": 2})
    found = await surface.act("get_policy", token)
    assert (found["revision"], found["policy"]["providers"][0]["name"]) == (2, "b")
    bad = (await surface.act("upsert_policy", token, BODY | {"policy": {"providers": 1}}))["error"]
    assert bad["details"]["problems"]
    assert (await surface.act("delete_policy", token))["changed"] is True
    assert (await surface.act("list_policies", token))["policies"] == []
    assert (await surface.act("get_policy", token))["error"]["code"] == "policy_not_found"


async def test_breakers_come_in_pages(surface: Surface) -> None:
    """Each once, however many there are; a page is bounded whatever is asked for, and the last one has no cursor."""
    surface.levers.views = [
        BreakerView(f"t{n % 50}", n.to_bytes(8), BreakerState.OPEN, 1, 2, 3) for n in reversed(range(2_300))
    ]
    seen: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    sizes: list[int] = []
    while True:
        reply = await surface.act("get_circuit_breaker_states", SECRETS[Role.VIEWER], body)
        sizes.append(len(reply["states"]))
        seen += [(s["tenant_id"], s["provider_id"]) for s in reply["states"]]
        if "cursor" not in reply:
            break
        body = {"cursor": reply["cursor"]}
    assert sizes == [1_000, 1_000, 300]
    assert len(set(seen)) == len(seen) == 2_300
    for wrong in ({"limit": 0}, {"limit": 1_001}, {"limit": True}, {"limit": "9"}, {"cursor": 7}):
        refused = await surface.act("get_circuit_breaker_states", SECRETS[Role.VIEWER], wrong)
        assert refused["error"]["code"] == "invalid_request", wrong


def test_no_token_is_kept() -> None:
    """Only digests: no fault, dump or log line of the tokens' keeper can show one."""
    tokens = AdminTokens([("dora", Role.OPERATOR, SECRET_OF_DORA)], open_reading=False)
    assert SECRET_OF_DORA not in repr(vars(tokens))
    assert SECRET_OF_DORA.encode() not in repr(vars(tokens)).encode()


def _view(tenant: str, provider: str = "a") -> BreakerView:
    return BreakerView(
        tenant_id=tenant,
        provider_entry=provider_entry(provider),
        state=BreakerState.OPEN,
        opened_at_ms=1,
        next_probe_at_ms=2,
        failures_in_a_row=1,
    )


async def test_equal_reads_over_all_tenants_are_shared_for_a_second() -> None:
    """By equal roles only; another body is another read; after a second it is read again."""
    surface = Surface()
    viewer, operator = SECRETS[Role.VIEWER], SECRETS[Role.OPERATOR]
    for _ in range(10):
        assert (await surface.act("list_tenants", viewer, {}))["ok"]
    assert surface.levers.reads == 1
    await surface.act("list_tenants", operator, {})
    assert surface.levers.reads == 2
    await surface.act("list_tenants", SECRET_OF_DORA, {})
    assert surface.levers.reads == 2
    await surface.act("list_tenants", viewer, {"limit": 5})
    assert surface.levers.reads == 3
    surface.now += 1
    await surface.act("list_tenants", viewer, {})
    assert surface.levers.reads == 4
    assert len(surface.levers.roles) == 14


@pytest.mark.parametrize("act", ["list_providers", "get_circuit_breaker_states"])
async def test_reads_of_one_tenant_are_never_shared(surface: Surface, act: str) -> None:
    """A lever must show at once."""
    for n in range(5):
        before = surface.levers.reads
        await surface.act(act, SECRETS[Role.VIEWER], {"tenant_id": "acme"})
        assert surface.levers.reads > before, n


async def test_a_role_that_may_not_read_gets_no_shared_answer() -> None:
    """The token is checked first."""
    surface = Surface()
    await surface.act("list_tenants", SECRETS[Role.VIEWER], {})
    assert (await surface.act("list_tenants", None, {}))["error"]["code"] == "unauthorized"
    assert (await surface.act("list_tenants", "wrong", {}))["error"]["code"] == "unauthorized"


async def test_reads_above_the_rate_are_overload_and_changes_are_not(surface: Surface) -> None:
    """At two reads in five seconds: the second of a moment is refused with a time, and a lever works."""
    surface = Surface(bounds=ReadBounds(per_s=0.4))
    await surface.store.apply("acme", policy_id="default", document=ONE, expect_revision=0)
    viewer = SECRETS[Role.VIEWER]
    assert (await surface.act("list_providers", viewer, {"tenant_id": "acme"}))["ok"]
    error = (await surface.act("list_providers", viewer, {"tenant_id": "acme"}))["error"]
    assert error["code"] == "service_overloaded"
    assert 2000 < error["details"]["retry_after_ms"] <= 2501
    for _ in range(20):
        assert (await surface.act("drain_provider", SECRETS[Role.OPERATOR]))["ok"]


async def test_a_page_of_breakers_reads_no_more_than_it_shows() -> None:
    """From the cursor's tenant on, until the page is full; every breaker comes once, in the order of the cursor."""
    surface = Surface()
    tenants = ["a", "a-b", "a.b", "a0", "b", "c"]
    surface.levers.views = [_view(t, p) for t in tenants for p in ("x", "y")]
    body: dict[str, Any] = {"limit": 3}
    shown: list[tuple[str, str]] = []
    while True:
        reply = await surface.act("get_circuit_breaker_states", SECRETS[Role.VIEWER], body)
        shown += [(s["tenant_id"], s["provider_id"]) for s in reply["states"]]
        if "cursor" not in reply:
            break
        body = {"limit": 3, "cursor": reply["cursor"]}
    assert len(set(shown)) == len(shown) == 12
    assert surface.levers.pages[:2] == ["a-b", "a.b"]
    assert len(surface.levers.pages) <= 2 * len(tenants)

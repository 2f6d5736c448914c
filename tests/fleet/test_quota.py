"""ROUTER_QUOTA_REQUESTS and ROUTER_QUOTA_AUDIT_RATE: what a tenant may be decided in a day, and what its requests may
write to its audit log, over all pods and policies of it."""

from router.domain.audit.records import AuditEntry
from tests.fleet.conftest import Own
from tests.fleet.foreign import task
from tests.fleet.harness import PLAIN, until


async def test_a_tenant_has_a_quota_of_decisions(own: Own) -> None:
    """Exactly so many on two pods under two policies, and so many remembered answers; repeats are free; the refusal
    says when there is more; another tenant has its own."""
    policies = {"acme": {"default": PLAIN, "other": PLAIN}, "globex": {"default": PLAIN}}
    fleet, caller = await own(pods=2, policies=policies, env={"ROUTER_QUOTA_REQUESTS": "30"})
    bodies = [task("acme", f"r{n}", policy_id=("default", "other")[n % 2]) for n in range(60)]
    replies = await caller.all(bodies)
    admitted = [n for n, r in enumerate(replies) if r.ok]
    assert len(admitted) == 30
    refused = {r.error["code"] for r in replies if not r.ok}
    assert refused == {"quota_exceeded"}
    details = next(r for r in replies if not r.ok).error["details"]
    assert details["scope"] == "tenant"
    assert details["retry_after_ms"] > 60_000
    again = await caller.all([bodies[n] for n in admitted])
    assert all(r.context["replayed"] for r in again)
    tenant = fleet.keys.tenant("acme")
    assert len(await fleet.redis("KEYS", tenant.idem_prefix + b"*")) == 30
    assert (await caller.ask(task("globex"))).ok


async def test_a_tenant_has_a_quota_of_audit_records(own: Own) -> None:
    """On two pods: no ten seconds of a log hold more than the quota and one, of decisions and refusals alike; what is
    beyond is refused and counted, so that records and counts are exactly what was asked. Another tenant has its own."""
    few = {"limits": [{"id": "few", "scope": "tenant", "resource": "requests", "limit": 10, "window": "1h"}]}
    policies = {"acme": {"default": PLAIN | few}, "globex": {"default": PLAIN}}
    fleet, caller = await own(pods=2, policies=policies, env={"ROUTER_QUOTA_AUDIT_RATE": "3"})
    replies = await caller.all([task("acme", f"r{n}") for n in range(400)])
    assert len({r.pod for r in replies}) == 2
    made = [r for r in replies if r.ok]
    assert len(made) == 10
    told = {(r.error["code"], r.error["details"]["limit_id"]) for r in replies if not r.ok}
    assert told == {("rate_limit_exceeded", "few"), ("quota_exceeded", "~audit")}
    beyond = next(r for r in replies if not r.ok and r.error["code"] == "quota_exceeded")
    assert 0 < beyond.error["details"]["retry_after_ms"] < 12_000

    def counts(entries: list[AuditEntry]) -> list[int]:
        return [int(str(e.details["times"])) for e in entries if e.outcome == "audit_quota"]

    async def whole() -> list[AuditEntry] | None:
        entries = await fleet.audit("acme")
        return entries if len(entries) + sum(counts(entries)) - len(counts(entries)) >= 400 else None

    entries = await until(whole, 10, "every refusal is told")
    single = [e for e in entries if e.outcome != "audit_quota"]
    assert len(single) + sum(counts(entries)) == 400
    assert sum(counts(entries)) == await fleet.total("router_audit_unrecorded_total")
    assert all(sum(1 for e in single if 0 <= e.ts_us - one.ts_us < 10_000_000) <= 31 for one in single)
    # A pod tells what it has counted once a second.
    assert len(counts(entries)) <= 2 * (2 + (entries[-1].ts_us - entries[0].ts_us) // 1_000_000)
    again = await caller.all([task("acme", r.context["request_id"]) for r in made])
    assert all(r.context["replayed"] for r in again)
    assert (await caller.ask(task("globex"))).ok


async def test_a_pod_that_ends_tells_what_it_has_counted(own: Own) -> None:
    """Within its last second, too."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": PLAIN}}, env={"ROUTER_QUOTA_AUDIT_RATE": "1"})
    replies = await caller.all([task("acme", f"r{n}") for n in range(100)])
    assert await fleet.pods[0].stop() == 0
    entries = await fleet.audit("acme")
    counted = sum(int(str(e.details["times"])) for e in entries if e.outcome == "audit_quota")
    assert sum(r.ok for r in replies) == 10
    assert sum(1 for e in entries if e.outcome != "audit_quota") + counted == 100

"""`router selftest` against real fleets, right ones and wrong ones."""

import os
from pathlib import Path

import orjson
import pytest

from router.cli.shared.exits import Exit
from tests.cli.conftest import run_process
from tests.fleet.conftest import Own
from tests.fleet.harness import Fleet
from tests.servers import ValkeyProcess

TENANT = "selftest-here"


async def selftest(fleet: Fleet, *more: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and verdict and sentence of every check."""
    where = ("--nats", fleet.nats.url, "--redis", fleet.valkey.url)
    ran = await run_process("selftest", "--json", *where, *more, cwd=fleet.folder)
    assert ran.out, ran.err
    return ran.code, {c["check"]: (c["verdict"], c["seen"]) for c in orjson.loads(ran.out)}


async def remembered(fleet: Fleet) -> set[bytes]:
    """The remembered answers of the throw-away tenant's partition: their keys do not name the tenant."""
    prefix = fleet.keys.tenant(TENANT).idem_prefix.decode()
    return {k for k in await fleet.nodes.scan(f"{prefix}*", 1000, 100_000) if not k.startswith(f"{prefix}:".encode())}


async def test_a_good_fleet_passes_and_keeps_nothing(fleet: Fleet) -> None:
    """Every check is ok, both pods are named, and neither its keys nor its answers stay in Redis."""
    before = await remembered(fleet)
    code, checks = await selftest(fleet, "--allow-volatile", "--tenant", TENANT)
    assert {verdict for verdict, _ in checks.values()} == {"ok"}, checks
    assert code == Exit.OK
    assert "pod-1 and pod-2" in checks["several pods answer"][1]
    assert not await fleet.nodes.scan(f"*{TENANT}*", 1000, 10)
    assert await remembered(fleet) <= before


async def test_a_redis_that_forgets_is_told(fleet: Fleet) -> None:
    """The harness has no append-only file: that is a failure, unless it is allowed."""
    code, checks = await selftest(fleet)
    assert code == Exit.NEGATIVE
    assert checks["Redis persistence"][0] == "failed"
    assert "appendonly" in checks["Redis persistence"][1]


async def test_a_stream_of_another_shape_is_told(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the settings say and what the server has is compared field by field, and nothing is altered."""
    monkeypatch.setitem(os.environ, "ROUTER_STREAM_USAGE_MAX_AGE", "1d")
    code, checks = await selftest(fleet, "--allow-volatile")
    assert code == Exit.NEGATIVE
    assert checks["streams and consumers"] == (
        "failed",
        "stream USAGE: max_age_s is 604800.0, specified is 86400.0",
    )


async def test_a_tenant_in_use_is_left_alone(fleet: Fleet) -> None:
    """A tenant that has anything in Redis is refused, and keeps its policies."""
    tenant = await fleet.tenant()
    code, checks = await selftest(fleet, "--allow-volatile", "--tenant", tenant)
    assert code == Exit.NEGATIVE
    assert checks["a pod decides"][0] == "failed"
    assert checks["cleaned up"][0] == "not checked"
    assert (await fleet.publisher.list(tenant)).find("default") is not None


async def test_one_replica_is_not_checked_for_two(own: Own) -> None:
    """With --pods 1 the comparison of pods says that it was not made; with 2 expected it fails."""
    fleet, _ = await own(pods=1)
    code, checks = await selftest(fleet, "--allow-volatile", "--pods", "1")
    assert (code, checks["several pods answer"][0]) == (Exit.OK, "not checked")
    code, checks = await selftest(fleet, "--allow-volatile", "--pods", "2")
    assert (code, checks["several pods answer"][0]) == (Exit.NEGATIVE, "failed")
    assert checks["cleaned up"][0] == "ok"


async def test_a_pod_on_another_redis_is_found(own: Own, tmp_path: Path) -> None:
    """Pods that do not share their counter cannot pass."""
    fleet, _ = await own(pods=1)
    with ValkeyProcess(tmp_path / "other") as other:
        await fleet.pod("stray", ROUTER_REDIS_URL=other.url).start()
        code, checks = await selftest(fleet, "--allow-volatile")
        assert code == Exit.NEGATIVE
        assert "failed" in {checks[name][0] for name in ("a pod decides", "one counter for all pods")}


async def test_the_baseline_is_not_checked(own: Own) -> None:
    """A CP1 fleet serves one tenant: that is said, and is no failure."""
    fleet, _ = await own(pods=1, state=None)
    code, checks = await selftest(fleet, "--allow-volatile", "--pods", "1")
    assert (code, checks["a pod decides"][0]) == (Exit.OK, "not checked")
    assert "CP1 baseline" in checks["a pod decides"][1]

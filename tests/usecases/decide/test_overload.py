"""What a crowded pod refuses unread, what it costs below half, and requests after a standstill."""

import asyncio
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from router.domain.gate import ALL_FEATURES
from router.domain.policy.model import TenantPolicies
from router.errors import BusError, LoadsFull
from router.ports.policies import LOADING, Loading
from router.usecases.decide.standstill import STANDSTILL_S, Standstill
from tests.usecases.decide.room import POLICIES, STAMP, Policies, Room
from tests.usecases.fakes.decisions import ADMITTED

OVERLOADED = "service_overloaded"
READERS = ("/admission.py", "/overload.py", "/peek.py", "/standstill.py")


class Many(Policies):
    """Tenants whose names begin with `t` have policies, others must be loaded, and no load ends by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[asyncio.Future[TenantPolicies | None]] = []
        self.full = False

    def get(self, tenant_id: str) -> TenantPolicies | Loading | None:
        """From the cache."""
        return replace(POLICIES, tenant_id=tenant_id) if tenant_id.startswith("t") else LOADING

    def begin_load(self, tenant_id: str) -> "asyncio.Future[TenantPolicies | None]":
        """Begins a load that the test ends."""
        if self.full:
            raise LoadsFull("too many")
        self.loads.append(asyncio.get_running_loop().create_future())
        return self.loads[-1]


def crowd(bound: int = 64, **settings: Any) -> tuple[Room, Many]:
    """A pod whose tenants are many."""
    policies = Many()
    return Room(policies=policies, max_in_flight=bound, **settings), policies


def refused(room: Room) -> list[str]:
    """The codes of the replies so far."""
    return [r["error"]["code"] for r in room.replies if not r["ok"]]


async def test_below_half_two_counts_are_all_that_runs() -> None:
    """Neither tenant nor share is read: of the modules of admission only `enter` and `leave` run."""
    room, _ = crowd()
    called: list[str] = []

    def seen(frame: FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.endswith(READERS):
            called.append(frame.f_code.co_name)

    for n in range(31):
        room.ask(tenant_id="t", request_id=f"r{n}")
    sys.setprofile(seen)
    try:
        room.ask(tenant_id="t")
        room.store.rows[-1](ADMITTED, STAMP)
    finally:
        sys.setprofile(None)
    assert called == ["enter", "leave"]


async def test_a_flood_leaves_room_for_the_next_tenant() -> None:
    """One tenant gets half of the pod; the next one is decided, and the first one's further requests are refused."""
    room, _ = crowd()
    for _ in range(100):
        room.ask(tenant_id="t-flood")
    assert (room.decide.in_flight, refused(room)) == (32, [OVERLOADED] * 68)
    room.ask(tenant_id="t-victim")
    assert room.decide.in_flight == 33
    assert {r["error"]["details"]["retry_after_ms"] > 100 for r in room.replies} == {True}
    assert room.registry.get_sample_value("router_shed_total", {"cause": "tenant"}) == 68


@pytest.mark.parametrize(
    ("doc", "headers", "subject"),
    [
        ({"tenant_id": "t-flood"}, None, None),
        ({}, {"tenant_id": "t-flood"}, None),
        ({}, {"Tenant_ID": "t-flood"}, None),
        ({}, None, "t-flood"),
        # Only a full decode finds the tenant of this one: half an emoji is repaired.
        ({"tenant_id": "t-flood", "metadata": "HALF"}, None, None),
    ],
)
async def test_the_tenant_is_found_wherever_it_is_named(
    doc: dict[str, str], headers: dict[str, str] | None, subject: str | None
) -> None:
    """Body, header or subject: nobody passes by naming it elsewhere."""
    room, _ = crowd()
    body = orjson.dumps({"version": "1", "task": {"type": "chat"}} | doc).replace(b'"HALF"', b'{"a":"\\ud83d"}')
    for _ in range(40):
        room.decide.handle(body, headers, subject, room.reply)
    assert (room.decide.in_flight, refused(room)) == (32, [OVERLOADED] * 8)


async def test_requests_that_wait_for_policies_do_not_fill_the_pod() -> None:
    """Invented names get half of the pod together, and a known tenant finds room."""
    room, policies = crowd()
    for n in range(100):
        room.ask(tenant_id=f"nobody-{n}")
    assert (room.decide.in_flight, refused(room)) == (32, [OVERLOADED] * 68)
    assert room.registry.get_sample_value("router_shed_total", {"cause": "loading"}) == 68
    for _ in range(16):
        room.ask(tenant_id="t-known")
    assert room.decide.in_flight == 48
    for load in policies.loads:
        load.set_result(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert room.decide.in_flight == 16
    assert refused(room)[68:] == ["policy_not_found"] * 32


async def test_a_waiting_request_makes_no_task() -> None:
    """Neither for the wait nor for the answer."""
    room, policies = crowd()
    before = asyncio.all_tasks()
    for n in range(10):
        room.ask(tenant_id=f"nobody-{n}")
    assert asyncio.all_tasks() == before
    for load in policies.loads:
        load.set_result(replace(POLICIES, tenant_id="t"))
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert len(room.store.rows) == 10


async def test_after_its_load_a_request_is_its_tenants() -> None:
    """It moves from those that wait to its tenant, and leaves the count once."""
    room, policies = crowd(16)
    for _ in range(3):
        room.ask(tenant_id="acme")
    for load in policies.loads:
        load.set_result(POLICIES)
    await asyncio.sleep(0)
    for row in room.store.rows:
        row(ADMITTED, STAMP)
    await room.answered(3)
    assert all(r["ok"] for r in room.replies)


async def test_too_many_waiting_names_are_overload() -> None:
    """Beyond the names that may wait: refused, nothing in flight."""
    room, policies = crowd()
    policies.full = True
    room.ask(tenant_id="nobody")
    assert await room.code() == OVERLOADED


@pytest.mark.parametrize("settings", [{"allowed_tenants": frozenset({"t-one"})}, {}])
async def test_a_pod_of_one_tenant_is_filled_by_it(settings: dict[str, Any]) -> None:
    """One allowed tenant, or the CP1 baseline: there is nobody to leave room for."""
    room, _ = crowd(baseline_tenant="t-one", **settings)
    if not settings:
        room.features = replace(ALL_FEATURES, multi_tenant=False)
    for _ in range(100):
        room.ask(tenant_id="t-one")
    assert (room.decide.in_flight, refused(room)) == (64, [OVERLOADED] * 36)
    assert room.registry.get_sample_value("router_shed_total", {"cause": "full"}) == 36


async def test_a_tenants_share_is_no_pressure_for_all() -> None:
    """`status.backpressure` asks all callers to slow down: for a full pod, not for one tenant's flood."""
    room, _ = crowd()
    for _ in range(40):
        room.ask(tenant_id="t-flood")
    assert room.decide.shed_at == float("-inf")
    for n in range(32):
        room.ask(tenant_id=f"t{n}")
    room.ask(tenant_id="t-late")
    assert room.decide.in_flight == 64
    assert room.decide.shed_at > 0


async def test_the_log_names_a_flooding_tenant_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute for each tenant; one for all invented names."""
    room, _ = crowd()
    for _ in range(100):
        room.ask(tenant_id="t-flood")
    for n in range(100):
        room.ask(tenant_id=f"nobody-{n}")
    lines = [(r.cause, getattr(r, "tenant_id", None)) for r in caplog.records if hasattr(r, "cause")]
    assert lines == [("tenant", "t-flood"), ("loading", None)]


async def test_a_refusal_in_protobuf() -> None:
    """In the headers, as any refusal."""
    room, _ = crowd(1)
    room.ask(tenant_id="t")
    got: list[tuple[bytes, Any]] = []
    room.decide.handle(
        b"", {"Content-Type": "application/x-protobuf"}, None, lambda data, headers: got.append((data, headers))
    )
    assert got[0][0] == b""
    assert got[0][1]["x-error-code"] == OVERLOADED


class Still:
    """A pod whose loop stands still when the test says so, and a connection that is behind until the test lets it."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.behind = asyncio.Event()
        self.fault = fault
        self.pings = 0
        self.standstill = Standstill(self._caught_up)
        self.room = Room(standstill=self.standstill)

    async def _caught_up(self) -> None:
        self.pings += 1
        await self.behind.wait()
        if self.fault is not None:
            raise self.fault

    def stood(self, seconds: float) -> None:
        """As if the last beat had been so long ago."""
        self.standstill.alive_until = asyncio.get_running_loop().time() + STANDSTILL_S - seconds


@pytest.mark.parametrize("fault", [None, BusError("a new connection")])
async def test_after_a_standstill_what_waited_is_refused(fault: Exception | None) -> None:
    """At once, until everything that waited has been read, also when the connection was lost; then it is decided."""
    pod = Still(fault)
    pod.stood(5)
    for _ in range(3):
        pod.room.ask()
    await asyncio.sleep(0)
    pod.room.ask()
    assert refused(pod.room) == [OVERLOADED] * 4
    assert pod.pings == 1
    assert pod.room.registry.get_sample_value("router_shed_total", {"cause": "stale"}) == 4
    pod.behind.set()
    await _until(lambda: pod.standstill.alive_until > 0)
    pod.room.ask()
    pod.room.store.rows[0](ADMITTED, STAMP)
    assert (await pod.room.answered(5))[-1]["ok"]


@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.95])
async def test_a_short_pause_refuses_nothing(seconds: float) -> None:
    """Up to a second."""
    pod = Still()
    pod.stood(seconds)
    pod.room.ask()
    assert (pod.room.decide.in_flight, pod.pings) == (1, 0)


async def test_the_beat_notices_a_standstill_without_requests() -> None:
    """The one that waits longest may come after the beat."""
    pod = Still()
    pod.stood(5)
    pod.standstill.start()
    pod.room.ask()
    await asyncio.sleep(0)
    assert (refused(pod.room), pod.pings) == ([OVERLOADED], 1)
    pod.standstill.stop()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the pod in memory has no event for it
            await asyncio.sleep(0)

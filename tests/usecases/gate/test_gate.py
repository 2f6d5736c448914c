"""The gate follows the mounted file: at once to what is good, with patience to what may pass."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from router.domain.alert import FLEET, Condition
from router.domain.decision import Code, Refused
from router.domain.gate import BASELINE, Fault
from router.domain.plan import ALL_FEATURES
from router.edge.state_file import MountedFile
from router.telemetry import Telemetry
from router.usecases.gate.gate import Gate, GateState
from tests.usecases.fakes.alerts import RecordedAlerts

GOOD = b'{"current_cp":"CP2-LC","updated_at":"2025-01-02T03:04:05Z"}'
OLDER = b'{"current_cp":"CP1-LC","updated_at":"2025-01-02T03:04:05Z"}'
UPDATED_MS = 1_735_787_045_000


class Pod:
    """A gate over a real file, with a clock that stands still."""

    def __init__(self, path: Path, *, max_age_s: int | None = None, metrics_tenants: Iterable[str] = ()) -> None:
        self.path = path
        self.now_ms = 0
        self.wall_ms = UPDATED_MS
        self.alerts = RecordedAlerts()
        self.telemetry = Telemetry(CollectorRegistry(), metrics_tenants)
        self.changes: list[GateState] = []
        self.gate = Gate(
            MountedFile(path),
            self.telemetry,
            self.alerts,
            monotonic_ms=lambda: self.now_ms,
            wall_ms=lambda: self.wall_ms,
            grace_s=60,
            max_age_s=max_age_s,
            changed=self.changes.append,
        )

    async def sees(self, content: bytes | None, *, after_ms: int = 1000) -> Fault | None:
        """What the gate says after the file became this."""
        if content is None:
            self.path.unlink(missing_ok=True)
        else:
            self.path.write_bytes(content)
        return await self.looks(after_ms)

    async def looks(self, after_ms: int = 1000) -> Fault | None:
        """What the gate says some time later."""
        self.now_ms += after_ms
        await self.gate.poll()
        return self.gate.state.fault

    def fallbacks(self, fault: Fault) -> float | None:
        """How often it fell back for this reason."""
        return self.telemetry.registry.get_sample_value("router_cp_fallback_total", {"reason": fault.value})


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """A pod whose state file is not there yet."""
    return Pod(tmp_path / "state.json")


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """A path that is there and cannot be read as a file, also by root."""
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()


def test_it_is_closed_before_the_first_look(pod: Pod) -> None:
    """A pod that has seen nothing allows nothing."""
    assert pod.gate.features is BASELINE
    assert not pod.gate.is_open


async def test_without_a_file_it_is_the_baseline_and_says_so(pod: Pod) -> None:
    """Counted and alerted, once, however often it looks."""
    assert await pod.looks() is Fault.MISSING
    assert await pod.looks() is Fault.MISSING
    assert pod.fallbacks(Fault.MISSING) == 1
    assert pod.alerts.open == {Condition.CP_STATE_UNUSABLE}


async def test_without_a_path_it_is_the_baseline() -> None:
    """ROUTER_CP_STATE_PATH is not set."""
    assert MountedFile(None).read() is None


async def test_a_good_file_opens_it_and_lifts_the_alert(pod: Pod) -> None:
    """No restart is needed."""
    await pod.looks()
    assert await pod.sees(GOOD) is None
    assert pod.gate.features is ALL_FEATURES
    assert not pod.alerts.open
    assert pod.telemetry.registry.get_sample_value("router_gate_open") == 1


async def test_tenants_have_labels_only_while_it_is_open(tmp_path: Path) -> None:
    """Per-tenant metrics are no part of the baseline."""
    pod = Pod(tmp_path / "state.json", metrics_tenants=["acme"])
    refused = Refused(Code.RATE_LIMIT_EXCEEDED, "no")
    for content in (OLDER, GOOD, OLDER):
        await pod.sees(content)
        pod.telemetry.decisions.count(refused, "acme", 0.001)
    labels = {"outcome": "rate_limit_exceeded", "reason": "none", "tenant": "acme"}
    assert pod.telemetry.registry.get_sample_value("router_decisions_total", labels) == 1


async def test_an_older_checkpoint_closes_it_at_once(pod: Pod) -> None:
    """A file that says so needs no grace."""
    await pod.sees(GOOD)
    assert await pod.sees(OLDER) is Fault.OLDER
    assert pod.gate.features is BASELINE


async def test_a_vanished_file_keeps_its_value_for_the_grace_time_and_no_longer(pod: Pod) -> None:
    """60 seconds after it was first missed."""
    await pod.sees(GOOD)
    assert await pod.sees(None) is None
    assert await pod.looks(59_999) is None
    assert await pod.looks(1) is Fault.MISSING


async def test_a_file_that_comes_back_starts_a_new_grace_time(pod: Pod) -> None:
    """The first absence is forgotten."""
    await pod.sees(GOOD)
    await pod.sees(None)
    await pod.sees(GOOD, after_ms=59_000)
    assert await pod.sees(None, after_ms=59_000) is None
    assert await pod.looks(59_000) is None


async def test_grace_keeps_an_older_value_too(pod: Pod) -> None:
    """The last value counts, and it was closed: absence opens nothing."""
    await pod.sees(OLDER)
    assert await pod.sees(None) is Fault.OLDER


async def test_a_half_written_file_is_looked_at_again(pod: Pod) -> None:
    """One malformed look after a good one changes nothing; the second one does."""
    await pod.sees(GOOD)
    assert await pod.sees(GOOD[:20]) is None
    assert await pod.sees(GOOD) is None
    assert await pod.sees(GOOD[:20]) is None
    assert await pod.looks() is Fault.MALFORMED


async def test_a_malformed_file_at_boot_is_the_baseline_at_once(pod: Pod) -> None:
    """There is no good value to keep."""
    assert await pod.sees(b"{") is Fault.MALFORMED


async def test_an_unreadable_file_is_the_baseline_at_once(pod: Pod) -> None:
    """It did not vanish: somebody broke it."""
    await pod.sees(GOOD)
    with unreadable(pod.path):
        assert await pod.looks() is Fault.UNREADABLE


async def test_a_configmap_swap_is_seen(tmp_path: Path) -> None:
    """Kubernetes replaces the folder behind a symlink; the path stays."""
    for name, content in (("one", OLDER), ("two", GOOD)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_bytes(content)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "state.json").symlink_to("..data/state.json")
    pod = Pod(tmp_path / "state.json")
    assert await pod.looks() is Fault.OLDER
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert await pod.looks() is None


async def test_another_reason_is_counted_on_its_own(pod: Pod) -> None:
    """From missing to malformed is news."""
    await pod.looks()
    await pod.sees(b"{")
    assert (pod.fallbacks(Fault.MISSING), pod.fallbacks(Fault.MALFORMED)) == (1, 1)
    assert [c.fault for c in pod.changes] == [Fault.MISSING, Fault.MALFORMED]


async def test_falling_back_again_and_again_is_an_alert_of_its_own(pod: Pod) -> None:
    """Three times in ten minutes."""
    for _ in range(2):
        await pod.sees(OLDER)
        await pod.sees(GOOD)
    assert pod.alerts.events == []
    await pod.sees(OLDER)
    assert pod.alerts.events == [(Condition.CP_FALLBACK_FREQUENT, FLEET)]


async def test_rare_fallbacks_are_not_frequent(pod: Pod) -> None:
    """Three times, but far apart."""
    for _ in range(3):
        await pod.sees(GOOD, after_ms=400_000)
        await pod.sees(OLDER)
    assert pod.alerts.events == []


async def test_an_old_file_is_alerted_and_still_counts(tmp_path: Path) -> None:
    """ROUTER_CP_MAX_AGE warns; it closes nothing; a fresh file lifts it."""
    pod = Pod(tmp_path / "state.json", max_age_s=3600)
    pod.wall_ms = UPDATED_MS + 3_600_000
    assert await pod.sees(GOOD) is None
    assert not pod.alerts.open
    pod.wall_ms += 1
    assert await pod.looks() is None
    assert pod.alerts.open == {Condition.CP_STATE_OLD}
    await pod.sees(GOOD.replace(b"2025", b"2026"))
    assert not pod.alerts.open


async def test_the_watcher_follows_the_file(tmp_path: Path) -> None:
    """Within a few looks, without being asked."""
    pod = Pod(tmp_path / "state.json")
    opened = asyncio.Event()
    pod.gate = Gate(
        MountedFile(pod.path),
        pod.telemetry,
        pod.alerts,
        monotonic_ms=lambda: 0,
        wall_ms=lambda: 0,
        changed=lambda state: opened.set() if state.fault is None else None,
    )
    task = asyncio.create_task(pod.gate.watch(0.001))
    pod.path.write_bytes(GOOD)
    await asyncio.wait_for(opened.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pod.gate.features is ALL_FEATURES

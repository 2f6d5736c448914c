"""The gate follows the mounted file: at once to what can be read, with the grace time to what cannot."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterable
from itertools import permutations
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from router.domain.alert import FLEET, Condition
from router.domain.decide.decision import Code, Refused
from router.domain.gate import ALL_FEATURES, BASELINE, Fault
from router.edge.state_file import MountedFile
from router.telemetry import Event, Telemetry
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


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("..data/state.json")


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(GOOD)
        file.truncate(64 << 30)


BAD: dict[str, tuple[Fault, Callable[[Path], object]]] = {
    "gone": (Fault.MISSING, lambda path: path.unlink(missing_ok=True)),
    "half of a mount's swap": (Fault.MISSING, _dangling),
    "empty": (Fault.MALFORMED, _write(b"")),
    "truncated in the key": (Fault.MALFORMED, _write(GOOD[:5])),
    "truncated in the value": (Fault.MALFORMED, _write(GOOD[:18])),
    "truncated at the end": (Fault.MALFORMED, _write(GOOD[:-1])),
    "zeros, as after a power loss": (Fault.MALFORMED, _write(bytes(len(GOOD)))),
    "written twice": (Fault.MALFORMED, _write(GOOD + GOOD)),
    "not JSON": (Fault.MALFORMED, _write(b"current_cp: CP2-LC")),
    "not text": (Fault.MALFORMED, _write(b"\xff\xfe" + GOOD)),
    "a number": (Fault.MALFORMED, _write(b'{"current_cp":2}')),
    "null": (Fault.MALFORMED, _write(b'{"current_cp":null}')),
    "a list": (Fault.MALFORMED, _write(b'["CP2-LC"]')),
    "no such field": (Fault.MALFORMED, _write(b'{"cp":"CP2-LC"}')),
    "no checkpoint": (Fault.MALFORMED, _write(b'{"current_cp":"latest"}')),
    "half a character": (Fault.MALFORMED, _write(b'{"current_cp":"\\ud800"}')),
    "too deep": (Fault.MALFORMED, _write(b'{"current_cp":' + b"[" * 100_000)),
    "too large": (Fault.MALFORMED, _huge),
    "a directory": (Fault.UNREADABLE, _directory),
    "a link to itself": (Fault.UNREADABLE, _loop),
    "a pipe": (Fault.UNREADABLE, _pipe),
}


@pytest.mark.parametrize(("fault", "make"), BAD.values(), ids=BAD)
async def test_what_cannot_be_read_keeps_the_last_value_for_the_grace_time(
    pod: Pod, fault: Fault, make: Callable[[Path], object]
) -> None:
    """However it is broken: the alert is raised at once, and the gate closes when the grace time is over."""
    await pod.sees(GOOD)
    make(pod.path)
    assert await pod.looks() is None
    assert pod.gate.features is ALL_FEATURES
    assert pod.alerts.open == {Condition.CP_STATE_UNUSABLE}
    assert fault in (pod.gate.state.doubt or "")
    assert await pod.looks(59_999) is None
    assert await pod.looks(1) is fault
    assert pod.gate.features is BASELINE
    assert pod.fallbacks(fault) == 1


@pytest.mark.parametrize(("fault", "make"), BAD.values(), ids=BAD)
async def test_a_file_that_was_never_readable_is_the_baseline_at_once(
    pod: Pod, fault: Fault, make: Callable[[Path], object]
) -> None:
    """There is no value to keep."""
    make(pod.path)
    assert await pod.looks() is fault
    assert pod.gate.features is BASELINE
    assert pod.alerts.open == {Condition.CP_STATE_UNUSABLE}


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "I/O error")])
async def test_a_file_that_may_not_be_read_keeps_its_value_for_the_grace_time(error: OSError) -> None:
    """No permission, or a bad disk; tests may run as root, so the file is a stand-in."""

    class File:
        error: OSError | None = None

        def read(self) -> bytes:
            if self.error is not None:
                raise self.error
            return GOOD

    now_ms = 0
    alerts, file = RecordedAlerts(), File()
    gate = Gate(file, Telemetry(CollectorRegistry()), alerts, monotonic_ms=lambda: now_ms, wall_ms=lambda: 0)
    await gate.poll()
    file.error = error
    await gate.poll()
    assert gate.is_open
    assert alerts.open == {Condition.CP_STATE_UNUSABLE}
    assert error.strerror is not None
    assert error.strerror in (gate.state.doubt or "")
    now_ms = 60_000
    await gate.poll()
    assert gate.state.fault is Fault.UNREADABLE


@pytest.mark.parametrize("order", list(permutations(["gone", "truncated in the value", "a directory"])), ids=str)
async def test_one_grace_time_covers_changing_faults(pod: Pod, order: tuple[str, ...]) -> None:
    """A file that is broken in turn in three ways has 60 seconds in all."""
    await pod.sees(GOOD)
    for name in order:
        if pod.path.is_dir():
            pod.path.rmdir()
        BAD[name][1](pod.path)
        assert await pod.looks(19_999) is None
    assert await pod.looks(19_999) is None
    assert await pod.looks(3) is BAD[order[-1]][0]


@pytest.mark.parametrize("name", ["gone", "truncated at the end", "a directory"])
async def test_an_older_file_is_obeyed_during_the_grace_time(pod: Pod, name: str) -> None:
    """It can be read, so it is no doubt; the next grace time begins with its value."""
    await pod.sees(GOOD)
    BAD[name][1](pod.path)
    assert await pod.looks() is None
    if pod.path.is_dir():
        pod.path.rmdir()
    assert await pod.sees(OLDER) is Fault.OLDER
    assert pod.alerts.open == {Condition.CP_STATE_UNUSABLE}
    assert await pod.sees(b"{") is Fault.OLDER


@pytest.mark.parametrize("name", ["gone", "empty", "too large"])
async def test_a_readable_file_ends_the_doubt_and_the_alert(pod: Pod, name: str) -> None:
    """Nothing closed, so nothing counts as a fallback."""
    await pod.sees(GOOD)
    BAD[name][1](pod.path)
    await pod.looks()
    assert await pod.sees(GOOD) is None
    assert (pod.gate.state.doubt, pod.alerts.open) == (None, set())
    assert [c.fault for c in pod.changes] == [None]


async def test_the_log_names_each_fault_once(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """Ten polls of a broken file are one line."""
    await pod.sees(GOOD)
    for _ in range(10):
        await pod.sees(b"{")
    for _ in range(10):
        await pod.sees(None)
    lines = [r for r in caplog.records if getattr(r, "event", "") == Event.GATE_STATE_UNUSABLE]
    assert [getattr(r, "reason", "") for r in lines] == [Fault.MALFORMED, Fault.MISSING]


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

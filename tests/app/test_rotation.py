"""Changed secret files: used once, tried again when refused, and never half."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from router.app.adapter_settings import secrets_of
from router.app.rotation import Rotation
from router.errors import BusError, InvalidInput, StoreUnavailable
from router.settings import Settings, load, mounted_files, read
from router.telemetry import Telemetry

OLD, NEW = "old-secret-0123456789abcdef012345", "new-secret-0123456789abcdef012345"


class Pod:
    """A pod with a Redis password, an admin token and NATS credentials from files; `used` has what its parts got."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / name for name in ("password", "token", "creds")}
        for file in self.files.values():
            file.write_text(OLD)
        self.environ = {
            "ROUTER_REDIS_USERNAME": "pods",
            "ROUTER_REDIS_PASSWORD_FILE": str(self.files["password"]),
            "ROUTER_ADMIN_TOKEN_FILE": str(self.files["token"]),
            "ROUTER_NATS_CREDS_FILE": str(self.files["creds"]),
        }
        self.used: list[str] = []
        self.refuses: dict[str, Exception] = {}
        self.telemetry = Telemetry(CollectorRegistry())
        settings = load(self.environ)
        self.rotation = Rotation(
            settings,
            self.telemetry,
            {part: self._part(part) for part in ("nats", "redis", "admin")},
            secrets_of,
            files=mounted_files(settings, self.environ),
            read=lambda: read(self.environ),
        )

    def _part(self, part: str) -> Callable[[Settings], Awaitable[None]]:
        async def use(settings: Settings) -> None:
            if part in self.refuses:
                raise self.refuses[part]
            self.used.append(part)

        return use

    def count(self, part: str, outcome: str) -> float | None:
        """Of the metric."""
        labels = {"part": part, "outcome": outcome}
        return self.telemetry.registry.get_sample_value("router_secret_rotations_total", labels)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """A pod."""
    return Pod(tmp_path)


@pytest.mark.parametrize(("file", "part"), [("password", "redis"), ("token", "admin"), ("creds", "nats")])
async def test_a_changed_file_is_used_once_by_its_part(pod: Pod, file: str, part: str) -> None:
    """And by no other; files that are written again with the same content are no change."""
    await pod.rotation.look()
    pod.files[file].write_text(OLD)
    await pod.rotation.look()
    assert pod.used == []
    pod.files[file].write_text(NEW)
    for _ in range(3):
        await pod.rotation.look()
    assert pod.used == [part]
    assert pod.count(part, "done") == 1


@pytest.mark.parametrize(
    "refusal", [StoreUnavailable("WRONGPASS"), BusError("authorization violation"), InvalidInput([])]
)
async def test_what_is_refused_is_tried_again_and_stops_no_other_part(pod: Pod, refusal: Exception) -> None:
    """Until the server accepts it."""
    pod.refuses["nats"] = refusal
    for file in pod.files.values():
        file.write_text(NEW)
    await pod.rotation.look()
    await pod.rotation.look()
    assert pod.used == ["redis", "admin"]
    assert pod.count("nats", "refused") == 2
    pod.refuses.clear()
    await pod.rotation.look()
    assert pod.used == ["redis", "admin", "nats"]


async def test_a_file_that_goes_back_is_no_change(pod: Pod) -> None:
    """The old content is in use still."""
    pod.refuses["redis"] = StoreUnavailable("WRONGPASS")
    pod.files["password"].write_text(NEW)
    await pod.rotation.look()
    pod.refuses.clear()
    pod.files["password"].write_text(OLD)
    await pod.rotation.look()
    assert pod.used == []


@pytest.mark.parametrize("content", [None, "", "short"])
async def test_a_bad_file_changes_nothing(pod: Pod, content: str | None) -> None:
    """Vanished, empty, or too short a token; the good one that follows is used."""
    if content is None:
        pod.files["token"].unlink()
    else:
        pod.files["token"].write_text(content)
    await pod.rotation.look()
    assert pod.used == []
    pod.files["token"].write_text(NEW)
    await pod.rotation.look()
    assert pod.used == ["admin"]


@pytest.mark.parametrize(
    ("bad", "content", "others"),
    [
        ("token", "short", ["nats", "redis"]),
        ("token", "", ["nats", "redis"]),
        ("password", "", ["nats", "admin"]),
        ("creds", None, ["redis", "admin"]),
    ],
)
async def test_a_bad_file_stops_its_own_part_only(
    pod: Pod, bad: str, content: str | None, others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The others change beside it; its part changes when it is mended, and none twice."""
    part = {"token": "admin", "password": "redis", "creds": "nats"}[bad]
    for name, file in pod.files.items():
        if name != bad:
            file.write_text(NEW)
        elif content is None:
            file.unlink()
        else:
            file.write_text(content)
    for _ in range(3):
        await pod.rotation.look()
    assert sorted(pod.used) == sorted(others)
    if content is not None:  # a file that has vanished may be back in a moment
        assert pod.count(part, "refused") == 3
        (line,) = [r for r in caplog.records if vars(r).get("event") == "secrets.refused"]
        assert (vars(line)["part"], NEW in line.getMessage()) == (part, False)
    pod.files[bad].write_text(NEW)
    for _ in range(3):
        await pod.rotation.look()
    assert sorted(pod.used) == ["admin", "nats", "redis"]


def test_without_files_nothing_is_watched() -> None:
    """Secrets in variables cannot change."""
    settings = load({"ROUTER_REDIS_USERNAME": "pods", "ROUTER_REDIS_PASSWORD": OLD})
    rotation = Rotation(settings, Telemetry(CollectorRegistry()), {}, secrets_of, files={})
    assert not rotation.watches


async def test_a_new_secret_is_hidden_in_the_log_before_it_is_used(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's refusal may repeat it."""
    hidden: list[str] = []
    monkeypatch.setattr("router.app.rotation.hide", hidden.extend)
    pod.refuses["redis"] = StoreUnavailable(NEW)
    pod.files["password"].write_text(NEW)
    await pod.rotation.look()
    assert NEW in hidden

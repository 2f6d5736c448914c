"""`router audit` against a real store: what people and machines see, and how they turn pages."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from secrets import token_hex
from struct import pack

import pytest
from msgspec import msgpack
from redis import Redis

from router.cli.shared.exits import Exit
from router.domain.audit.records import TaskFeatures
from router.domain.tasks.task import Action
from router.store.keys import Keys
from tests.cli.conftest import Run

FIRST_MS = 1_700_000_000_000


def write(redis_url: str, tenant: str, n: int) -> None:
    """The n-th result, n seconds after the first."""
    at = FIRST_MS + n * 1000
    head = pack(">BBdd16sBBdB", 1, Action.RESULT_SETTLED, float(at), 0.0, n.to_bytes(16), 0, 1, -1.0, 0)
    features = TaskFeatures(f"r{n}", "default", 1, "alpha", f"a{n}", "ann" if n % 2 else "bob", None, "success")
    with Redis.from_url(redis_url) as client:
        client.xadd(Keys().tenant(tenant).audit, {"r": head + msgpack.encode(features)}, id=f"{at}-0")


@pytest.fixture
def tenant(redis_url: str) -> str:
    """A tenant with five results, a second apart."""
    name = f"audited-{token_hex(4)}"
    for n in range(5):
        write(redis_url, name, n)
    return name


def test_pages_are_turned_by_the_cursor(run: Run, tenant: str, redis_url: str) -> None:
    """--json tells the cursor; the page after the last one has none."""
    base = ("audit", "query", "--tenant", tenant, "--redis", redis_url, "--limit", "3", "--json")
    first = json.loads(run(*base).out)
    second = json.loads(run(*base, "--cursor", first["cursor"]).out)
    seen = [e["details"]["request_id"] for page in (first, second) for e in page["entries"]]
    assert seen == ["r4", "r3", "r2", "r1", "r0"]
    assert second["cursor"] is None


def test_a_tenant_without_a_log_is_told(run: Run, redis_url: str) -> None:
    """Each command says so in one line that names where tenants are, and ends with 1; --json is JSON all the same."""
    nobody = ("--tenant", f"nobody-{token_hex(4)}", "--redis", redis_url)
    for act in (("query",), ("tail",), ("stats",), ("export", "--out", "out")):
        done = run("audit", *act, *nobody)
        assert (done.code, done.err.count("\n"), "router tenant list" in done.err) == (Exit.NEGATIVE, 1, True), act
    assert json.loads(run("audit", "export", "--out", "out", *nobody, "--json").out) is None


def test_people_are_told_how_to_go_on(run: Run, tenant: str, redis_url: str) -> None:
    """The cursor is on standard error, so that the table can be piped."""
    done = run("audit", "query", "--tenant", tenant, "--redis", redis_url, "--limit", "3")
    assert "more: --cursor " in done.err
    assert "--cursor" not in done.out


def test_filters_and_times(run: Run, tenant: str, redis_url: str) -> None:
    """User, resource, and a range with its beginning included and its end excluded."""
    base = ("audit", "query", "--tenant", tenant, "--redis", redis_url, "--json")
    by_user = json.loads(run(*base, "--user", "ann").out)["entries"]
    assert [e["details"]["request_id"] for e in by_user] == ["r3", "r1"]
    by_resource = json.loads(run(*base, "--resource", "assignment:a2").out)["entries"]
    assert [e["timestamp"] for e in by_resource] == ["2023-11-14T22:13:22.000Z"]
    times = ("--since", "2023-11-14T22:13:21Z", "--until", "2023-11-14T22:13:23Z")
    assert [e["details"]["request_id"] for e in json.loads(run(*base, *times).out)["entries"]] == ["r2", "r1"]
    assert run(*base, "--since", "1h").code == Exit.NEGATIVE


def test_a_cursor_of_another_query_is_refused(run: Run, tenant: str, redis_url: str) -> None:
    """Exit code 2, in words."""
    done = run("audit", "query", "--tenant", tenant, "--redis", redis_url, "--cursor", "nonsense")
    assert done.code == Exit.USAGE
    assert "cursor: is not a cursor of this query" in done.err


@pytest.mark.parametrize(
    ("filters", "wrong"),
    [
        ("--action decided", "action"),
        ("--outcome decide", "outcome"),
        ("--decision-id 17", "decision_id"),
        ("--since 1h --until 2h", "since"),
        ("--cursor nonsense", "cursor"),
        ("--action nothing --outcome nothing", "action outcome"),
    ],
)
def test_a_filter_that_nothing_can_match_is_refused(run: Run, filters: str, wrong: str) -> None:
    """Instead of "no entry": all of them at once, and before the store is asked (there is none)."""
    done = run("audit", "query", "--tenant", "acme", *filters.split(), "--redis", "redis://127.0.0.1:1")
    assert done.code == Exit.USAGE
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == wrong.split()


@pytest.mark.parametrize(
    "filters", ["--action decision", "--action role.used", "--outcome validator_blocked", "--outcome rejected"]
)
def test_every_word_of_the_log_may_be_asked_for(run: Run, tenant: str, redis_url: str, filters: str) -> None:
    """An action or its beginning, an outcome: there is none like that here."""
    assert run("audit", "query", "--tenant", tenant, *filters.split(), "--redis", redis_url).code == Exit.NEGATIVE


def test_stats(run: Run, tenant: str, redis_url: str) -> None:
    """Entries, bytes, span and actions; a tenant without a log is a negative answer."""
    found = json.loads(run("audit", "stats", "--tenant", tenant, "--redis", redis_url, "--json").out)
    assert (found["entries"], found["actions"]) == (5, {"result.settled": 5})
    assert found["oldest"] == "2023-11-14T22:13:20.000Z"
    assert found["size_bytes"] > 0
    told = run("audit", "stats", "--tenant", tenant, "--redis", redis_url)
    assert "result.settled" in told.out
    assert run("audit", "stats", "--tenant", "nobody", "--redis", redis_url).code == Exit.NEGATIVE


def test_the_replica_is_read_when_one_is_named(
    run: Run, tenant: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server itself may be out of reach: reading asks the replica only."""
    monkeypatch.setenv("ROUTER_REDIS_REPLICA_URL", redis_url)
    done = run("audit", "tail", "--tenant", tenant, "--redis", "redis://127.0.0.1:1/0", "-n", "2", "--json")
    assert [json.loads(line)["details"]["request_id"] for line in done.out.splitlines()] == ["r3", "r4"]


class Following:
    """`router audit tail --follow --json` as a process of its own."""

    def __init__(self, tenant: str, redis_url: str, folder: Path) -> None:
        command = (sys.executable, "-m", "router", "audit", "tail", "--follow", "--json", "-n", "2")
        self.process = subprocess.Popen(
            (*command, "--tenant", tenant, "--redis", redis_url),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def line(self) -> str:
        """The request of the next entry; waits for it."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["details"]["request_id"])

    def end(self) -> tuple[int, bytes, bytes]:
        """Exit code, the rest of standard output, standard error."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def follow(redis_url: str, tmp_path: Path) -> Iterator[Callable[[str], Following]]:
    """`follow(tenant)`; what still runs at the end is killed."""
    begun: list[Following] = []

    def begin(tenant: str) -> Following:
        begun.append(Following(tenant, redis_url, tmp_path))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.kill()
        one.process.communicate()


def test_a_tail_is_followed_until_ctrl_c(tenant: str, redis_url: str, follow: Callable[[str], Following]) -> None:
    """The newest, then each as it comes, at once though it goes into a pipe; Ctrl-C ends it with 130 and not a word."""
    tail = follow(tenant)
    assert [tail.line(), tail.line()] == ["r3", "r4"]
    for n in (5, 6):
        write(redis_url, tenant, n)
        assert tail.line() == f"r{n}"
    tail.process.send_signal(signal.SIGINT)
    assert tail.end() == (Exit.INTERRUPTED, b"", b"")


def test_a_tail_of_an_empty_log_waits_for_the_first_entry(redis_url: str, follow: Callable[[str], Following]) -> None:
    """A tenant that was not asked for yet is no mistake when what comes is to be followed."""
    tenant = f"later-{token_hex(4)}"
    tail = follow(tenant)
    write(redis_url, tenant, 0)
    assert tail.line() == "r0"
    tail.process.send_signal(signal.SIGINT)
    assert tail.end() == (Exit.INTERRUPTED, b"", b"")


def test_a_tail_ends_with_its_reader(tenant: str, redis_url: str, follow: Callable[[str], Following]) -> None:
    """As in `router audit tail -f … | head -2`: it ends with the next entry, in order and without a word."""
    tail = follow(tenant)
    assert tail.process.stdout is not None
    assert [tail.line(), tail.line()] == ["r3", "r4"]
    tail.process.stdout.close()
    write(redis_url, tenant, 5)
    assert tail.process.wait(20) == Exit.OK
    assert tail.process.stderr is not None
    assert tail.process.stderr.read() == b""

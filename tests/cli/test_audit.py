"""`router audit` against a real store: what people and machines see, and how they turn pages."""

import json
from secrets import token_hex
from struct import pack

import pytest
from msgspec import msgpack
from redis import Redis

from router.cli.exits import Exit
from router.domain.audit import TaskFeatures
from router.domain.task import Action
from router.store.keys import Keys
from tests.cli.conftest import Run

FIRST_MS = 1_700_000_000_000


@pytest.fixture
def tenant(redis_url: str) -> str:
    """A tenant with five results, a second apart."""
    name = f"audited-{token_hex(4)}"
    with Redis.from_url(redis_url) as client:
        for n in range(5):
            at = FIRST_MS + n * 1000
            head = pack(">BBdd16sBBdB", 1, Action.RESULT_SETTLED, float(at), 0.0, n.to_bytes(16), 0, 1, -1.0, 0)
            features = TaskFeatures(f"r{n}", "default", 1, "alpha", f"a{n}", "ann" if n % 2 else "bob", None, "success")
            client.xadd(Keys().tenant(name).audit, {"r": head + msgpack.encode(features)}, id=f"{at}-0")
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

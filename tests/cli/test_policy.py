"""`router policy` on real files and a real store."""

import json
import uuid
from pathlib import Path

import pytest

from router.cli.shared.exits import Exit
from router.installed_files import examples_dir
from router.wire.policies import schema_file
from tests.cli.conftest import Run

GOOD = '{"version":"1.0","providers":[{"name":"p1","weight":100}]}'
OTHER = '{"version":"1.0","providers":[{"name":"p1","weight":60},{"name":"p2","weight":40}]}'


@pytest.fixture
def tenant() -> str:
    """A tenant nobody else has."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def policy(run: Run, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`router policy …` pointed at the store; NATS is away."""
    monkeypatch.setenv("ROUTER_REDIS_URL", redis_url)
    monkeypatch.setenv("ROUTER_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setattr("router.cli.shared.bus.CONNECT_S", 0.05)
    return lambda *arguments: run("policy", *arguments)


def written(text: str) -> str:
    """A file with this text in the present folder."""
    path = Path("policy.json")
    path.write_text(text)
    return str(path)


def test_the_examples_are_good(run: Run) -> None:
    """Every example policy passes the check."""
    files = sorted(map(str, examples_dir().glob("policies/*/*.json")))
    assert len(files) >= 3
    assert run("policy", "check", *files).code == Exit.OK


def test_a_bad_file_is_told_with_all_its_mistakes(run: Run) -> None:
    """Every mistake is a line with file and path, and the exit code is 1."""
    done = run("policy", "check", written('{"version":"1.0","providers":[{"name":"p","weight":101}],"limit":[]}'))
    assert done.code == Exit.NEGATIVE
    assert "policy.json: error: providers[0].weight:" in done.out
    assert "policy.json: error: limit:" in done.out


def test_a_folder_is_checked_as_it_would_be_mounted(run: Run) -> None:
    """Every policy of the folder is read, and a name that says no tenant is a mistake."""
    assert run("policy", "check", str(examples_dir() / "policies")).code == Exit.OK
    Path("mounted/acme").mkdir(parents=True)
    Path("mounted/acme/default.json").write_text(GOOD)
    Path("mounted/default.json").write_text(GOOD)
    done = run("policy", "check", "mounted")
    assert done.code == Exit.NEGATIVE
    assert "mounted/acme/default.json: ok" in done.out
    assert "mounted/default.json: error: the file name holds no tenant and policy id" in done.out


def test_an_empty_folder_is_a_mistake(run: Run) -> None:
    """A CI job that looks into the wrong folder must not pass."""
    Path("empty").mkdir()
    assert run("policy", "check", "empty").code == Exit.NEGATIVE


def test_warnings_fail_a_strict_check_only(run: Run) -> None:
    """Legal but odd: said with code 0, refused with --strict."""
    odd = written('{"version":"1.0","providers":[{"name":"p1","weight":90}]}')
    assert run("policy", "check", odd).code == Exit.OK
    done = run("policy", "check", "--strict", odd)
    assert (done.code, "weights sum to 90" in done.out) == (Exit.NEGATIVE, True)


def test_the_schema_is_printed(run: Run) -> None:
    """The command prints what docs/policy.schema.json publishes."""
    assert run("policy", "schema").out.encode() == schema_file()


def test_a_missing_file_is_wrong_usage(run: Run) -> None:
    """A file that is not there is wrong usage."""
    done = run("policy", "check", "nowhere.json")
    assert done.code == Exit.USAGE
    assert "nowhere.json" in done.err


def test_a_bad_file_is_told_before_the_store_is_asked(run: Run) -> None:
    """Every mistake of it, though there is no Redis."""
    document = written('{"providers":[{"name":"a","weight":"x"}],"zzz":1}')
    done = run("policy", "apply", document, "--tenant", "acme", "--redis", "redis://127.0.0.1:1")
    assert done.code == Exit.USAGE
    assert [line.split(":")[1] for line in done.err.splitlines()] == [" zzz", " providers[0].weight"]


def test_what_is_applied_is_shown(policy: Run, tenant: str) -> None:
    """An applied policy is listed and shown."""
    assert policy("apply", written(GOOD), "--tenant", tenant).code == Exit.OK
    listed = json.loads(policy("list", "--tenant", tenant, "--json").out)
    shown = json.loads(policy("show", "--tenant", tenant, "--json").out)
    assert [p["policy"] for p in listed] == ["default"]
    assert shown["document"]["providers"] == [{"name": "p1", "weight": 100}]


def test_nats_away_is_mentioned_and_no_failure(policy: Run, tenant: str) -> None:
    """A policy is written also when NATS cannot be told; the user reads what that means."""
    done = policy("apply", written(GOOD), "--tenant", tenant)
    assert done.code == Exit.OK
    assert "stored, but not announced" in done.err
    assert "nats://127.0.0.1:1: no connecti" in done.err


def test_the_same_policy_is_not_written_again(policy: Run, tenant: str) -> None:
    """Applying what is there changes nothing and says so."""
    policy("apply", written(GOOD), "--tenant", tenant)
    assert "is already like that; nothing was changed" in policy("apply", written(GOOD), "--tenant", tenant).out


def test_a_script_reads_the_revision_of_what_it_wrote(policy: Run, tenant: str) -> None:
    """With --json; an apply that changes nothing tells the one that is there, for the next --expect-revision."""
    told = [
        json.loads(policy("apply", written(document), "--tenant", tenant, "--json").out)
        for document in (GOOD, OTHER, OTHER)
    ]
    assert [(t["revision"], t["changed"]) for t in told] == [(1, True), (2, True), (2, False)]


def test_a_dry_run_changes_nothing(policy: Run, tenant: str) -> None:
    """A dry run tells the changes and writes none."""
    policy("apply", written(GOOD), "--tenant", tenant)
    done = policy("apply", written(OTHER), "--tenant", tenant, "--dry-run")
    assert "providers[p1].weight: 100 → 60" in done.out
    assert f"for requests of {tenant} without policy_id, or with policy_id default, first given to:" in done.out
    assert "  p2 0 % → 40 %" in done.out
    assert json.loads(policy("list", "--tenant", tenant, "--json").out)[0]["revision"] == 1


def test_a_lost_race_is_a_refusal(policy: Run, tenant: str) -> None:
    """A write against another revision is refused with code 1."""
    policy("apply", written(GOOD), "--tenant", tenant)
    done = policy("apply", written(OTHER), "--tenant", tenant, "--expect-revision", "7")
    assert done.code == Exit.NEGATIVE
    assert "revision 1" in done.err


def test_a_deleted_policy_is_gone(policy: Run, tenant: str) -> None:
    """After a delete there is nothing to list, which is a negative answer."""
    policy("apply", written(GOOD), "--tenant", tenant)
    assert policy("delete", "--tenant", tenant, "--policy", "default").code == Exit.OK
    assert policy("list", "--tenant", tenant).code == Exit.NEGATIVE


def test_what_was_is_shown_and_written_again(policy: Run, tenant: str) -> None:
    """The history names revisions with author and changes; one of them is written again as a new one."""
    policy("apply", written(GOOD), "--tenant", tenant)
    policy("apply", written(OTHER), "--tenant", tenant)
    shown = policy("history", "--tenant", tenant)
    assert shown.code == Exit.OK
    assert "providers[p1].weight: 100 → 60" in shown.out
    assert policy("rollback", "--tenant", tenant, "--to", "1").code == Exit.OK
    past = json.loads(policy("history", "--tenant", tenant, "--json").out)
    assert [(p["revision"], p["act"], p["restores"]) for p in past] == [
        (3, "rolled_back", 1),
        (2, "applied", None),
        (1, "applied", None),
    ]
    assert past[0]["document"] == past[2]["document"]
    assert all(p["by"] for p in past)


def test_a_dry_roll_back_changes_nothing(policy: Run, tenant: str) -> None:
    """It tells the changes and writes none."""
    policy("apply", written(GOOD), "--tenant", tenant)
    policy("apply", written(OTHER), "--tenant", tenant)
    done = policy("rollback", "--tenant", tenant, "--to", "1", "--dry-run")
    assert "providers[p1].weight: 60 → 100" in done.out
    assert json.loads(policy("list", "--tenant", tenant, "--json").out)[0]["revision"] == 2


def test_an_unknown_revision_is_wrong_usage(policy: Run, tenant: str) -> None:
    """The message names the revisions that there are; of an unknown policy nothing is known."""
    policy("apply", written(GOOD), "--tenant", tenant)
    done = policy("rollback", "--tenant", tenant, "--to", "9")
    assert (done.code, "there are: 1" in done.err) == (Exit.USAGE, True)
    assert policy("history", "--tenant", tenant, "--policy", "none").code == Exit.NEGATIVE


def test_a_quota_is_a_refusal(policy: Run, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a tenant may have: code 1, with the setting to raise."""
    monkeypatch.setenv("ROUTER_QUOTA_PROVIDERS", "1")
    done = policy("apply", written(OTHER), "--tenant", tenant)
    assert done.code == Exit.NEGATIVE
    assert "refused: quota_exceeded: the tenant would have 2 providers, at most 1 (ROUTER_QUOTA_PROVIDERS)" in done.err


def test_no_such_policy_is_a_negative_answer(policy: Run, tenant: str) -> None:
    """Showing what is not there ends with code 1."""
    assert policy("show", "--tenant", tenant, "--policy", "none").code == Exit.NEGATIVE


def test_a_store_that_is_away_is_named_with_the_fix(run: Run) -> None:
    """Without Redis the exit code is 3 and the message says where to name it."""
    done = run("policy", "list", "--tenant", "acme", "--redis", "redis://127.0.0.1:1/0")
    assert done.code == Exit.UNREACHABLE
    assert "--redis" in done.err


def test_an_empty_log_is_a_negative_answer(run: Run, redis_url: str, tenant: str) -> None:
    """No audit entry at all ends with code 1."""
    assert run("audit", "query", "--tenant", tenant, "--redis", redis_url).code == Exit.NEGATIVE


def test_a_wrong_time_is_wrong_usage(run: Run, redis_url: str, tenant: str) -> None:
    """A time that is none is wrong usage, and the message shows the right form."""
    done = run("audit", "query", "--tenant", tenant, "--redis", redis_url, "--since", "yesterday")
    assert done.code == Exit.USAGE
    assert "15m" in done.err

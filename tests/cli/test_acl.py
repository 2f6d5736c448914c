"""`router acl`: what it prints can be used as it is."""

import json

import pytest

from router.domain.access import Party
from tests.cli.conftest import Run


def test_the_users_of_redis_are_an_acl_file(run: Run) -> None:
    """An ACL file has users and nothing else: Redis does not start with a comment in it. Notes are elsewhere."""
    ran = run("acl", "redis")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        ["user", f"router-{party}"] for party in (Party.POD, Party.VIEWER, Party.OPERATOR, Party.ADMIN)
    ]
    assert "user default off" in ran.err


def test_with_sentinels_they_and_the_replicas_have_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Redis; the parties have users in the sentinels, which another command prints."""
    monkeypatch.setenv("ROUTER_REDIS_SENTINELS", "s:26379")
    ran = run("acl", "redis")
    assert [line.split()[1] for line in ran.out.splitlines()][-2:] == ["router-sentinel", "router-replica"]
    assert "router acl sentinel" in ran.err
    users = run("acl", "sentinel").out.splitlines()
    assert [line.split()[1] for line in users] == [line.split()[1] for line in ran.out.splitlines()][:-2]
    assert all(line.endswith("+sentinel|master") for line in users)


@pytest.mark.parametrize("server", ["redis", "nats", "sentinel"])
def test_json_has_every_party_by_name(run: Run, server: str) -> None:
    """One document, and only the party that was asked for with --for."""
    assert set(json.loads(run("acl", server, "--json").out)) == set(Party)
    assert set(json.loads(run("acl", server, "--json", "--for", "worker").out)) == {"worker"}


def test_each_user_has_a_name_and_inboxes_of_its_own(run: Run) -> None:
    """--name and --tenant tell one application, and one tenant, from another; the inbox prefix follows the name."""
    named = json.loads(run("acl", "nats", "--json", "--for", "caller", "--name", "billing.eu").out)["caller"]
    assert (named["name"], named["inbox_prefix"]) == ("billing.eu", "_INBOX.billing~eu")
    assert named["subscribe"] == ["_INBOX.billing~eu.>"]
    bound = json.loads(run("acl", "nats", "--json", "--for", "worker", "--tenant", "acme").out)["worker"]
    assert bound["name"] == "router-worker-acme"
    assert "caf.exec.result.v1.tenant.acme" in bound["publish"]
    assert "caf.exec.result.v1" not in bound["publish"]
    printed = run("acl", "nats", "--for", "worker", "--tenant", "acme")
    assert "inbox prefix _INBOX.router-worker-acme" in printed.out
    assert "--consumer" in printed.err


@pytest.mark.parametrize(
    "wrong",
    ["--name a --for caller --for pod", "--name a", "--name a/b --for caller", "--tenant a..b", "--tenant ÿ"],
)
def test_names_that_no_user_can_have_are_refused(run: Run, wrong: str) -> None:
    """Wrong usage, before anything is printed."""
    done = run("acl", "nats", *wrong.split())
    assert (done.code, done.out) == (2, "")

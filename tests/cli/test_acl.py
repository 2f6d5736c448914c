"""`router acl`: what it prints can be used as it is."""

import json

import pytest

from router.domain.access import Party
from tests.cli.conftest import Run


def test_the_users_of_redis_are_an_acl_file(run: Run) -> None:
    """An ACL file has users and nothing else: Redis does not start with a comment in it. Notes are elsewhere."""
    ran = run("acl", "redis")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        ["user", f"router-{party}"] for party in (Party.POD, Party.OPERATOR, Party.COMMAND_LINE)
    ]
    assert "user default off" in ran.err


def test_with_sentinels_they_and_the_replicas_have_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Redis; the parties have users in the sentinels, which another command prints."""
    monkeypatch.setenv("ROUTER_REDIS_SENTINELS", "s:26379")
    ran = run("acl", "redis")
    assert [line.split()[1] for line in ran.out.splitlines()][-2:] == ["router-sentinel", "router-replica"]
    assert "router acl sentinel" in ran.err
    users = run("acl", "sentinel").out.splitlines()
    assert [line.split()[1] for line in users] == ["router-pod", "router-operator", "router-command-line"]
    assert all(line.endswith("+sentinel|master") for line in users)


@pytest.mark.parametrize("server", ["redis", "nats", "sentinel"])
def test_json_has_every_party_by_name(run: Run, server: str) -> None:
    """One document, and only the party that was asked for with --for."""
    assert set(json.loads(run("acl", server, "--json").out)) == set(Party)
    assert set(json.loads(run("acl", server, "--json", "--for", "worker").out)) == {"worker"}

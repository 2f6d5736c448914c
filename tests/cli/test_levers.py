"""`router provider|breaker|tenant|idempotency` on a real store."""

import json
from pathlib import Path

import pytest

from router.cli.shared.exits import Exit
from tests.cli.conftest import Run


def test_drain_and_enable_are_shown(cli: Run, tenant: str) -> None:
    """A drained provider is listed as such, a fallback's too; a repeat says that nothing was changed."""
    for name in ("p1", "spare"):
        assert f"{tenant}/{name} is drained\n" in cli("provider", "drain", name, "--tenant", tenant).out
    assert "already; nothing was changed" in cli("provider", "drain", "p1", "--tenant", tenant).out
    assert json.loads(cli("provider", "enable", "p1", "--tenant", tenant, "--json").out) == {
        "tenant_id": tenant,
        "provider_id": "p1",
        "drained": False,
        "changed": True,
    }
    listed = json.loads(cli("provider", "list", "--tenant", tenant, "--json").out)
    assert [(p["provider_id"], p["policies"], p["drained"]) for p in listed["providers"]] == [
        ("p1", ["default"], False),
        ("spare", ["default"], True),
    ]
    assert "drained" in cli("provider", "list", "--tenant", tenant).out


@pytest.mark.parametrize(
    "command",
    ["provider drain p1", "breaker force-open p1", "policy delete --policy default", "idempotency forget --key k"],
)
def test_a_change_that_no_replica_has_is_an_error(
    cli: Run, tenant: str, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """It is made, and a failover may undo it: the operator looks before they repeat it."""
    monkeypatch.setenv("ROUTER_WAIT_REPLICAS", "1")
    done = cli(*command.split(), "--tenant", tenant)
    assert (done.code, done.out) == (Exit.UNREACHABLE, "")
    assert "was executed, but not confirmed by 1 replicas in time; a failover may undo it" in done.err
    assert "look at it before you repeat it" in done.err


def test_a_forced_breaker_is_listed_until_it_is_reset(cli: Run, tenant: str) -> None:
    """It is open, and the list says who holds it; after the reset there is nothing to list."""
    assert cli("breaker", "force-open", "p1", "--tenant", tenant).code == Exit.OK
    (listed,) = json.loads(cli("breaker", "list", "--tenant", tenant, "--json").out)
    assert (listed["provider_id"], listed["state"], listed["forced"]) == ("p1", "open", True)
    assert listed["reason"] == "forced open by an operator"
    assert tenant in cli("breaker", "list").out
    assert cli("breaker", "reset", "p1", "--tenant", tenant).code == Exit.OK
    assert cli("breaker", "list", "--tenant", tenant).code == Exit.NEGATIVE


def test_an_unknown_provider_is_refused_with_those_there_are(cli: Run, tenant: str) -> None:
    """The mistake is told with the right names, and nothing is written."""
    done = cli("provider", "drain", "p2", "--tenant", tenant)
    assert done.code == Exit.USAGE
    assert f"tenant {tenant} has no provider p2 (there are p1, spare)" in done.err


def test_an_unknown_tenant_is_refused_with_those_there_are(cli: Run, tenant: str) -> None:
    """The same for a tenant, whatever the act."""
    for command in (
        ("tenant", "disable", "nobody"),
        ("provider", "list", "--tenant", "nobody"),
        ("provider", "drain", "p1", "--tenant", "nobody"),
        ("idempotency", "forget", "--tenant", "nobody", "--key", "k"),
    ):
        done = cli(*command)
        assert done.code == Exit.USAGE, command
        assert "there is no tenant nobody (there are " in done.err, command


def test_a_drained_provider_may_leave_its_policies(cli: Run, tenant: str) -> None:
    """It is let in again by the name that no policy has any more."""
    cli("provider", "drain", "spare", "--tenant", tenant)
    Path("other.json").write_text('{"version":"1.0","providers":[{"name":"p1","weight":100}]}')
    assert cli("policy", "apply", "other.json", "--tenant", tenant).code == Exit.OK
    assert cli("provider", "enable", "spare", "--tenant", tenant).code == Exit.OK
    listed = json.loads(cli("provider", "list", "--tenant", tenant, "--json").out)
    assert [p["provider_id"] for p in listed["providers"]] == ["p1"]


def test_levers_survive_a_policy(cli: Run, tenant: str) -> None:
    """A policy that is written, deleted and written again finds switch and levers as they were."""
    cli("provider", "drain", "p1", "--tenant", tenant)
    cli("breaker", "force-open", "spare", "--tenant", tenant)
    cli("tenant", "disable", tenant)
    assert cli("policy", "delete", "--tenant", tenant, "--policy", "default").code == Exit.OK
    assert cli("policy", "apply", "policy.json", "--tenant", tenant).code == Exit.OK
    listed = json.loads(cli("provider", "list", "--tenant", tenant, "--json").out)
    assert listed["disabled"] is True
    assert [(p["drained"], bool(p["breaker"])) for p in listed["providers"]] == [(True, False), (False, True)]


def test_a_disabled_tenant_is_listed_as_such(cli: Run, tenant: str) -> None:
    """In the list of all tenants and in that of its providers."""
    cli("tenant", "disable", tenant)
    listed = json.loads(cli("tenant", "list", "--json").out)
    assert {"tenant_id": tenant, "revision": 1, "disabled": True, "drained": 0, "forced_open": 0} in listed
    assert f"{tenant} is disabled" in cli("provider", "list", "--tenant", tenant).err
    cli("tenant", "enable", tenant)
    assert cli("provider", "list", "--tenant", tenant).err == ""


def test_every_act_names_its_principal_and_reason(cli: Run, tenant: str) -> None:
    """The audit log has who and why."""
    cli("provider", "drain", "p1", "--tenant", tenant, "--why", "too hot")
    cli("breaker", "force-open", "p1", "--tenant", tenant)
    cli("breaker", "reset", "p1", "--tenant", tenant)
    cli("provider", "enable", "p1", "--tenant", tenant)
    cli("tenant", "disable", tenant)
    cli("tenant", "enable", tenant)
    pages = json.loads(cli("audit", "query", "--tenant", tenant, "--user", "carol", "--json").out)
    entries = pages["entries"] if isinstance(pages, dict) else pages
    assert [e["action"] for e in entries][::-1] == [
        "policy.applied",
        "provider.drained",
        "breaker.forced",
        "breaker.forced",
        "provider.enabled",
        "tenant.disabled",
        "tenant.enabled",
    ]
    assert entries[-2]["details"] == {"why": "too hot"}


def test_nothing_to_forget_is_a_negative_answer(cli: Run, tenant: str) -> None:
    """No answer of that name: code 1; neither name given, or both: wrong usage."""
    forget = ("idempotency", "forget", "--tenant", tenant)
    assert cli(*forget, "--request-id", "r").code == Exit.NEGATIVE
    assert cli(*forget).code == Exit.USAGE
    assert cli(*forget, "--request-id", "r", "--key", "k").code == Exit.USAGE

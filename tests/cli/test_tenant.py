"""`router tenant show|purge` on a real store."""

import json
import uuid
from pathlib import Path

import pytest

from router.cli.shared.exits import Exit
from tests.cli.conftest import POLICY, Run


def test_show_says_what_there_is(cli: Run, tenant: str) -> None:
    """Policies, levers, keys by kind."""
    cli("provider", "drain", "p1", "--tenant", tenant)
    facts = json.loads(cli("tenant", "show", tenant, "--json").out)
    assert (facts["policies"], facts["drained"], facts["disabled"]) == (["default"], ["p1"], False)
    assert {k["kind"]: k["keys"] for k in facts["keys"]} == {"head": 1, "policies": 1, "history": 1, "audit": 1}
    assert facts["audit_entries"] == 2
    shown = cli("tenant", "show", tenant)
    assert shown.code == Exit.OK
    assert "policies" in shown.out


def test_show_of_nobody(cli: Run) -> None:
    """Exit code 1."""
    ran = cli("tenant", "show", "nobody-here")
    assert ran.code == Exit.NEGATIVE
    assert "has nothing in this store" in ran.err


def test_a_purge_must_be_confirmed(cli: Run, tenant: str) -> None:
    """Without a terminal nobody can be asked: usage error, and nothing is gone; a dry run asks nothing."""
    ran = cli("tenant", "purge", tenant)
    assert ran.code == Exit.USAGE
    assert "--yes" in ran.err
    assert "4 keys would go" in cli("tenant", "purge", tenant, "--dry-run").out
    assert cli("tenant", "show", tenant).code == Exit.OK


def test_a_purge_takes_all(cli: Run, tenant: str) -> None:
    """Said by kind; the second one finds nothing; who did it is in the log of no tenant."""
    why = f"ticket {uuid.uuid4().hex[:8]}"
    ran = cli("tenant", "purge", tenant, "--yes", "--why", why, "--json")
    assert ran.code == Exit.OK
    assert json.loads(ran.out)["kinds"] == {"audit": 1, "history": 1}
    assert "nats://127.0.0.1:1: no connecti" in ran.err
    assert json.loads(cli("tenant", "show", tenant, "--json").out)["disabled"] is True
    listed = json.loads(cli("audit", "query", "--tenant", "~", "--resource", f"tenant:{tenant}", "--json").out)
    (entry,) = listed["entries"]
    assert (entry["action"], entry["user_id"], entry["details"]["why"]) == ("tenant.purged", "carol", why)


def test_a_tenant_made_anew_is_off(cli: Run, tenant: str) -> None:
    """Until it is enabled; its policies begin at revisions of their own."""
    cli("tenant", "purge", tenant, "--yes")
    Path("policy.json").write_text(POLICY)
    assert cli("policy", "apply", "policy.json", "--tenant", tenant).code == Exit.OK
    assert json.loads(cli("tenant", "show", tenant, "--json").out)["disabled"] is True
    assert cli("tenant", "enable", tenant).code == Exit.OK


@pytest.mark.parametrize("name", ["", "a b", "~"])
def test_what_is_no_tenant(cli: Run, name: str) -> None:
    """A name that no request could carry, the log of no tenant among them."""
    assert cli("tenant", "purge", name, "--yes").code == Exit.USAGE

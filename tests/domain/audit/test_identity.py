"""How the audit names people."""

import pytest
from msgspec.structs import replace

from router.domain.audit.identity import MARK, PLAINLY, AuditIdentity, Naming
from router.domain.audit.records import AuditEntry, AuditQuery
from router.domain.decide.request import DecideRequest

KEY = b"a key of thirty-two bytes and more"
HASHED = AuditIdentity(Naming.HASHED, KEY)
OFF = AuditIdentity(Naming.OFF)
REQUEST = DecideRequest("acme", "r", "default", "chat", b"", user_id="alice", client_ip="10.0.0.7")


def test_plain_changes_nothing() -> None:
    """The very same request: who does not use it pays nothing."""
    assert PLAINLY.hide(REQUEST) is REQUEST


def test_a_hashed_name_is_stable_and_keyed() -> None:
    """The same name gives the same hash under one key, and another under another key."""
    hidden = HASHED.hide(REQUEST)
    assert (hidden.owner_id, hidden.user_id, hidden.client_ip) == ("alice", HASHED.hashed("alice"), hidden.client_ip)
    assert HASHED.hide(REQUEST) == hidden
    other = AuditIdentity(Naming.HASHED, KEY + b"!").hide(REQUEST)
    assert other.user_id != hidden.user_id
    assert other.client_ip != hidden.client_ip
    for name in (hidden.user_id, hidden.client_ip):
        assert name is not None
        assert name.startswith(MARK)
        assert len(name) == len(MARK) + 32


@pytest.mark.parametrize("name", ["alice", "10.0.0.7", "h:x", "ü" * 255, " "])
def test_users_and_addresses_have_hashes_of_their_own(name: str) -> None:
    """A user who is called like an address is not that address; no name is in its hash."""
    hidden = HASHED.hide(replace(REQUEST, user_id=name, client_ip="10.0.0.7"))
    assert hidden.user_id != hidden.client_ip
    assert hidden.user_id == HASHED.hashed(name)
    assert name not in str(hidden.user_id)[len(MARK) :] or len(name) < 2


@pytest.mark.parametrize("identity", [HASHED, OFF])
def test_a_rebuilt_request_is_hidden_once(identity: AuditIdentity) -> None:
    """The next attempt, from a job that has the user plainly and the address as it was, has the same names."""
    hidden = identity.hide(REQUEST)
    rebuilt = replace(hidden, user_id=hidden.owner_id, owner_id=None)
    assert identity.hide(rebuilt) == hidden


def test_off_keeps_no_name() -> None:
    """Only limits know the user."""
    hidden = OFF.hide(REQUEST)
    assert (hidden.user_id, hidden.client_ip, hidden.owner_id) == (None, None, "alice")
    nobody = HASHED.hide(replace(REQUEST, user_id=None, client_ip=None))
    assert (nobody.user_id, nobody.client_ip, nobody.owner_id) == (None, None, None)


def entry_of(user: str | None) -> AuditEntry:
    """An entry of a user, as a query sees it."""
    return AuditEntry("1-0", 1, "acme", "decision.made", "request", "r", user, None, None, {})


@pytest.mark.parametrize("key", [b"", KEY])
def test_queries_by_the_plain_name(key: bytes) -> None:
    """With the key they find hashed entries, and plain ones from before; without it the plain ones."""
    hashed = AuditIdentity(key=key).hashed("alice")
    query = AuditQuery("acme", user_id="alice", user_hash=hashed)
    assert query.matches(entry_of("alice"))
    assert query.matches(entry_of(HASHED.hashed("alice"))) is bool(key)
    assert not query.matches(entry_of("bob"))
    assert not query.matches(entry_of(None))
    assert query.may_match()(b"..alice..")
    assert query.may_match()(str(HASHED.hashed("alice")).encode()) is bool(key)
    assert not query.may_match()(b"..bob..")

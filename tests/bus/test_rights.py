"""Permissions in NATS: the table against the calls in the code, and users that have exactly them."""

import re
from pathlib import Path

import pytest

import router
from router.app.adapter_settings import nats_account
from router.bus.rights import Account, User, user
from router.bus.streams.reply_subjects import ReplySubjects
from router.bus.streams.specs import matches
from router.domain.access import ROLES, Party
from router.domain.roles import Role
from router.settings import load
from router.usecases.admin.acts import ACTS
from router.wire import subjects

_VERB = re.compile(r'f?"(?:\{bus\.options\.js_prefix\}\.)?((?:STREAM|CONSUMER)(?:\.[A-Z]+)+)')
BUS = Path(router.__file__).parent / "bus"


def account(tenant: str | None = None, **env: str) -> Account:
    """Of a fleet with these settings."""
    return nats_account(load({"ROUTER_NATS_URL": "nats://127.0.0.1:4222", **env}), tenant)


def may(party: Party, publish: str, tenant: str | None = None, **env: str) -> bool:
    """Whether a party may publish to a subject."""
    return any(matches(pattern, subject=publish) for pattern in user(party, account(tenant, **env)).publish)


def test_every_call_of_the_api_is_in_the_table() -> None:
    """A call that the code makes is allowed to a pod or to people, and none that it does not make."""
    made = {verb for p in BUS.rglob("*.py") if p.name != "rights.py" for verb in _VERB.findall(p.read_text())}
    allowed = [s for party in Party for s in user(party, account()).publish if s.startswith("$JS.API.")]
    assert len(made) > 8
    assert {verb for verb in made if not any(s.startswith(f"$JS.API.{verb}") for s in allowed)} == set()
    assert {s for s in allowed if not any(s.startswith(f"$JS.API.{verb}") for verb in {*made, "INFO"})} == set()


def test_every_request_subject_is_served_and_every_stream_is_written() -> None:
    """What pods answer, they may subscribe to; what they store, they may publish."""
    pod = user(Party.POD, account(ROUTER_AUDIT_EXPORT_SUBJECT="beamline.audit.v1.all"))
    for subject in (subjects.DECIDE, f"{subjects.DECIDE}.acme.eu", subjects.GET_DECISION, f"{subjects.ADMIN}.drain"):
        assert any(matches(pattern, subject=subject) for pattern in pod.subscribe), subject
    for subject in (subjects.ASSIGN, "caf.exec.gpu", subjects.ASSIGNED, subjects.USAGE, f"{subjects.ALERT}.critical"):
        assert any(matches(pattern, subject=subject) for pattern in pod.publish), subject
    for subject in ("beamline.audit.v1.all", f"{subjects.RESULT}.dlq", "beamline.ext.pre.pii", "_INBOX.abc.1"):
        assert any(matches(pattern, subject=subject) for pattern in pod.publish), subject


@pytest.mark.parametrize("party", [Party.CALLER, Party.WORKER])
@pytest.mark.parametrize(
    "subject",
    [
        subjects.USAGE,
        f"{subjects.ALERT}.critical",
        subjects.ASSIGN,
        "$JS.API.STREAM.DELETE.RESULT",
        "$JS.API.STREAM.MSG.GET.RESULT",
        "beamline.router.internal.v1.policy_changed",
        "_INBOX.of.somebody",
    ],
)
def test_what_nobody_but_the_fleet_may(party: Party, subject: str) -> None:
    """No usage, alerts, assignments or replies of their own, and no look at the messages of others."""
    assert not may(party, subject)


def test_a_tenants_caller_is_held_to_its_tenant() -> None:
    """With --tenant there is no subject that names no tenant."""
    assert may(Party.CALLER, f"{subjects.DECIDE}.acme", "acme")
    assert may(Party.WORKER, f"{subjects.RESULT}.tenant.acme", "acme")
    for subject in (subjects.DECIDE, f"{subjects.DECIDE}.other", subjects.RESULT, f"{subjects.GET_DECISION}.other"):
        assert not may(Party.CALLER, subject, "acme")
        assert not may(Party.WORKER, subject, "acme")


def test_allowed_prefixes_of_final_results() -> None:
    """Final results may go where the setting lets callers send them."""
    env = {"ROUTER_RESULT_SUBJECT_PREFIXES": "acme.results.,out."}
    assert may(Party.POD, "acme.results.7", **env)
    assert may(Party.POD, "out.7.8", **env)
    assert not may(Party.POD, "acme.other.7", **env)
    assert not may(Party.POD, "acme.results.7")


def test_only_listed_replies_are_sent_where_the_setting_lists_them() -> None:
    """ROUTER_REPLY_PREFIXES takes the place of the inboxes."""
    assert may(Party.POD, "_R_.x.1")
    assert may(Party.POD, "team.7", ROUTER_REPLY_PREFIXES="team.")
    assert not may(Party.POD, "_INBOX.7", ROUTER_REPLY_PREFIXES="team.")
    assert may(Party.POD, "_GR_.cluster.server.team.7", ROUTER_REPLY_PREFIXES="team.")


def test_names_of_streams_follow_the_settings() -> None:
    """Nothing is allowed on a stream of another name."""
    names = {"ROUTER_STREAM_RESULT_NAME": "R1", "ROUTER_STREAM_ACK_NAME": "A1", "ROUTER_STREAM_DLQ_NAME": "D1"}
    for party in Party:
        allowed = user(party, account(**names)).publish
        assert not [s for s in allowed if re.search(r"\.(RESULT|ACK|DLQ)(\.|$)", s.removeprefix("$JS.ACK"))]


def test_no_pattern_is_there_twice_or_covered() -> None:
    """The list is as short as it can be."""
    for party in Party:
        of: User = user(party, account())
        for patterns in (of.publish, of.subscribe):
            assert len(set(patterns)) == len(patterns)
            assert not [
                (a, b) for a in patterns for b in patterns if a != b and a.endswith(".>") and matches(a, subject=b)
            ]


@pytest.mark.parametrize(
    "subject",
    [
        subjects.USAGE,
        f"{subjects.ALERT}.critical",
        subjects.ASSIGN,
        "$JS.API.STREAM.DELETE.RESULT",
        "$JS.API.STREAM.MSG.DELETE.DLQ",
        "$JS.API.STREAM.UPDATE.RESULT",
        "$JS.API.CONSUMER.DURABLE.CREATE.RESULT.mine",
        subjects.RESULT,
        subjects.POLICY_CHANGED,
        f"{subjects.ADMIN}.drain_provider",
        f"{subjects.ADMIN}.upsert_policy",
        "_INBOX.of.somebody",
    ],
)
def test_a_viewer_changes_nothing(subject: str) -> None:
    """It has the reading acts, and reads streams; whatever token it may have, it can pull no lever."""
    assert not may(Party.VIEWER, subject)


def test_the_acts_follow_the_roles() -> None:
    """The party of a role may use the acts of that role, and no others."""
    for party, role in ROLES.items():
        for act in ACTS.values():
            assert may(party, f"{subjects.ADMIN}.{act.name}") is (act.role <= role), (party, act.name)
    assert {p.value for p in ROLES} == {r.label for r in Role}


ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"ROUTER_NATS_INBOX_PREFIX": "_ROUTER.inbox"},
    {"ROUTER_NATS_INBOX_PREFIX": "_INBOX.router-pod"},
    {"ROUTER_REPLY_PREFIXES": "_ACME.inbox.,_OTHER."},
]


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=["default", "own", "below _INBOX", "listed"])
@pytest.mark.parametrize("party", [p for p in Party if p is not Party.POD])
def test_pods_may_answer_where_a_party_listens(party: Party, env: dict[str, str]) -> None:
    """The printed rights of one account fit together: a reply reaches the inbox of who asked, and pods answer it."""
    reply = f"{user(party, account(**env)).inbox_prefix}.abc.1"
    assert may(Party.POD, reply, **env)
    listed = load({"ROUTER_NATS_URL": "nats://127.0.0.1:4222", **env}).reply_prefixes
    assert reply.encode().startswith(ReplySubjects(listed).passing)


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=["default", "own", "below _INBOX", "listed"])
def test_nobody_hears_the_replies_to_another(env: dict[str, str]) -> None:
    """Of any two users that callers, workers and people are, neither may subscribe to an inbox of the other."""
    parties = [p for p in Party if p is not Party.POD]
    users = [user(p, account(**env)) for p in parties]
    users += [user(Party.CALLER, account(**env), name) for name in ("billing", "billing.eu", "bill", "a.b.c")]
    tenants = ("acme", "acme.eu", "acme-eu", "acm", "_", "caller")
    users += [user(p, account(tenant, **env)) for tenant in tenants for p in (Party.CALLER, Party.WORKER)]
    assert len({u.name for u in users}) == len(users)
    for one in users:
        for other in users:
            heard = any(matches(pattern, subject=f"{other.inbox_prefix}.abc.1") for pattern in one.subscribe)
            assert heard is (one is other), (one.name, other.name)


def test_a_worker_of_one_tenant_takes_from_its_own_consumer() -> None:
    """It pulls from the named consumer, and hears no assignment by subscribing: those have no tenant in the subject."""
    bound = user(Party.WORKER, nats_account(load({"ROUTER_NATS_URL": "nats://x:4222"}), "acme", consumer="of-acme"))
    assert "$JS.API.CONSUMER.MSG.NEXT.ASSIGN.of-acme" in bound.publish
    assert not any("workers" in subject for subject in bound.publish)
    assert bound.subscribe == ("_INBOX.router-worker-acme.>",)

"""Which reply subjects are answered, without a server: prefixes, the fleet's subjects, streams and their wildcards."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bus.requests.decide_endpoint import DecideEndpoint
from router.bus.streams.reply_subjects import ReplySubjects
from router.bus.streams.specs import matches
from router.domain.reply_refusal import ReplyRefusal
from router.wire import subjects


def refusal(rules: ReplySubjects, reply: str) -> ReplyRefusal | None:
    """What a door does with this reply subject."""
    return None if reply.encode().startswith(rules.passing) else rules._refusal(reply)


def rules(*patterns: str, prefixes: tuple[str, ...] = ()) -> ReplySubjects:
    """Rules that know one stream with these subjects."""
    made = ReplySubjects(prefixes)
    made.set_streams({"S": patterns})
    return made


@pytest.mark.parametrize("reply", ["_INBOX.x", "_R_.abc.1", "_GR_.a.b.c", "$GR.x"])
def test_prefixes_of_inboxes_and_of_the_server_pass(reply: str) -> None:
    """Also over a stream, and before any list was read; everything else with a dollar sign is the server's."""
    wanted = ReplyRefusal.SYSTEM if reply[0] == "$" else None
    assert refusal(ReplySubjects(), reply) is wanted
    assert refusal(rules(">"), reply) is wanted


@pytest.mark.parametrize(
    ("pattern", "reply", "covered"),
    [
        ("orders.new", "orders.new", True),
        ("orders.new", "orders.old", False),
        ("orders.*", "orders.new", True),
        ("orders.*", "orders.new.1", False),
        ("orders.>", "orders.new.1", True),
        ("orders.>", "orders", False),
        ("*.new", "orders.new", True),
        ("*.*.new", "orders.new", False),
        (">", "anything.at.all", True),
        ("orders", "orders", True),
        ("ordersx.>", "orders.new", False),
        ("orders.*.new", "orders.eu.new", True),
    ],
)
def test_streams_cover_by_the_servers_rules(pattern: str, reply: str, covered: bool) -> None:
    """Literals, one token, the rest; wildcards in front too."""
    assert (refusal(rules("nothing.else", pattern), reply) is ReplyRefusal.STREAM) is covered


@pytest.mark.parametrize(
    ("reply", "listed"),
    [
        ("_GR_.hash.server._ACME.inbox.1", True),
        ("_GR_.hash.server._ACME.x.y.z", True),
        ("_GR_.hash.server._INBOX.1", False),
        ("_GR_.hash.server.caf.exec.result.v1", False),
        ("_GR_.hash._ACME.inbox", False),
        ("_GR_._ACME.", False),
        ("_GR_.", False),
        ("_GR_.a.b._GR_.c.d._ACME.1", False),
    ],
)
def test_where_prefixes_are_listed_the_subject_behind_a_gateways_counts(reply: str, listed: bool) -> None:
    """`_GR_.<cluster>.<server>.<reply>`: whoever is behind a gateway has no more rights, and no less."""
    assert (refusal(rules(prefixes=("_ACME.",)), reply) is None) is listed


_token = st.sampled_from(["a", "b", "*"])
_patterns = st.builds(
    lambda tokens, rest: ".".join([*tokens, ">"] if rest or not tokens else tokens),
    st.lists(_token, max_size=3),
    st.booleans(),
)


@given(st.lists(_patterns, max_size=5), st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4))
def test_the_index_of_streams_finds_what_a_search_of_all_finds(patterns: list[str], tokens: list[str]) -> None:
    """By first token or not, the same subjects are covered."""
    reply = ".".join(tokens)
    covered = any(matches(p, subject=reply) for p in patterns)
    assert (refusal(rules(*patterns), reply) is ReplyRefusal.STREAM) is covered


@pytest.mark.parametrize(
    "own",
    [getattr(subjects, n) for n in dir(subjects) if n.isupper() and n not in ("INBOX", "OF_TENANT") and n[0] != "_"]
    + ["caf.exec.anything", "beamline.router.v1.cancel"],
)
def test_every_subject_of_the_fleet_and_all_below_is_refused(own: str) -> None:
    """Each constant of the wire; a name that only begins alike is somebody else's."""
    for reply in (own, f"{own}.x", f"{own}.x.y"):
        assert refusal(rules(), reply) is ReplyRefusal.FLEET
    if not own.startswith("caf.exec."):
        assert refusal(rules(), f"{own}x") is None


@pytest.mark.parametrize("prefix", ["hub.js", "JS.API", "acme_js", "imports.jetstream.api"])
def test_an_imported_api_of_jetstream_is_refused(prefix: str) -> None:
    """ROUTER_NATS_JS_API_PREFIX: the router may create streams and delete consumers there, wherever it is."""
    made = ReplySubjects(js_api_prefix=prefix)
    made.set_streams({})
    for call in ("STREAM.CREATE.X", "CONSUMER.DELETE.ASSIGN.workers", "INFO"):
        assert refusal(made, f"{prefix}.{call}") is ReplyRefusal.SYSTEM
    assert [refusal(made, r) for r in (f"{prefix}x.y", prefix, "$JS.API.INFO")] == [None, None, ReplyRefusal.SYSTEM]


def test_before_the_first_list_only_inboxes_are_answered() -> None:
    """It fails closed; without the right to read the list it goes on without one."""
    made = ReplySubjects()
    assert refusal(made, "answers.1") is ReplyRefusal.UNKNOWN
    made.streams_unknown()
    assert refusal(made, "answers.1") is None


def test_a_stream_that_did_not_answer_keeps_its_subjects() -> None:
    """A list that misses it does not uncover them; one without it does."""
    made = rules("orders.>")
    made.set_streams({"T": ("t",)}, missing=["S", "U"])
    assert refusal(made, "orders.1") is ReplyRefusal.STREAM
    made.streams_unknown()
    assert refusal(made, "orders.1") is ReplyRefusal.STREAM
    made.set_streams({"T": ("t",)})
    assert refusal(made, "orders.1") is None


def test_listed_prefixes_are_answered_and_nothing_else() -> None:
    """ROUTER_REPLY_PREFIXES replaces all rules; inboxes need a line there, too."""
    made = rules("a.>", prefixes=("a.b.", "_INBOX.acme."))
    assert [refusal(made, r) for r in ("a.b.c", "_INBOX.acme.1")] == [None, None]
    assert {refusal(made, r) for r in ("_INBOX.x", "a.c", "a.b", "$JS.API", "_R_.x", "", "_INBOX.acmex.1")} == {
        ReplyRefusal.NOT_LISTED
    }


def test_the_check_of_an_inbox_costs_next_to_nothing() -> None:
    """Under 300 ns on any machine that runs tests (about 90 ns): a request costs the pod 25 µs."""
    passing, reply = ReplySubjects().passing, b"_INBOX.gHq7fYx2MH3Ec1AQ.gHq7fYx2"
    fastest = min(_seconds(passing, reply) for _ in range(500))
    assert fastest < 300e-9


def _seconds(passing: tuple[bytes, ...], reply: bytes, rounds: int = 200) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        if reply and not reply.startswith(passing):
            raise AssertionError
    return (time.perf_counter() - began) / rounds


def test_a_request_with_an_inbox_calls_nothing_of_the_rules() -> None:
    """Only the prefixes that the door holds are compared."""

    class Untouched(ReplySubjects):
        def admits(self, reply: bytes, subject: bytes) -> bool:
            raise AssertionError(reply, subject)

    seen: list[bytes] = []
    door = DecideEndpoint(
        None,  # type: ignore[arg-type]  # the door is not opened
        lambda data, _headers, _tenant, _reply: seen.append(data),
        "pod",
        replies=Untouched(),
    )
    door._on_message(subjects.DECIDE.encode(), b"_INBOX.x", b"1", None)
    door._on_message(subjects.DECIDE.encode(), b"", b"2", None)
    assert seen == [b"1", b"2"]

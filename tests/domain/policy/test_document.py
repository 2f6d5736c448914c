"""Policy documents: what they compile to, and what they are refused for."""

from pathlib import Path

import orjson
import pytest

from router.domain.json import JsonObject
from router.domain.policy.document import Parsed, content_hash, parse
from router.domain.policy.model import Policy
from router.domain.policy.vocabulary import Algorithm, OnFail, OnStoreError, Resource, Scope, Selection, WhenAllOpen
from router.errors import InvalidInput
from router.installed_files import examples_dir
from router.wire.policies import MAX_DOCUMENT_BYTES, decode, encode

BAD = sorted((Path(__file__).parent / "bad_policies").glob("*.json"))
EXAMPLES = sorted((examples_dir() / "policies").glob("*/*.json"))
TWO: JsonObject = {"providers": [{"name": "a", "weight": 60}, {"name": "b", "weight": 40}]}


def policy(**sections: object) -> Policy:
    """The compiled policy of two providers and some more sections."""
    return parsed(**sections).policy


def parsed(**sections: object) -> Parsed:
    """As `policy`, with warnings."""
    document = orjson.loads(orjson.dumps({**TWO, **sections}))
    return parse({k: v for k, v in document.items() if v is not None})


def warnings(**sections: object) -> list[str]:
    """The warnings, as text."""
    return [str(w) for w in parsed(**sections).warnings]


def problems(document: object) -> list[str]:
    """The problems for which a document is refused, as text."""
    with pytest.raises(InvalidInput) as refused:
        parse(orjson.loads(orjson.dumps(document)))
    return [str(p) for p in refused.value.problems]


@pytest.mark.parametrize("file", BAD, ids=lambda f: f.stem)
def test_one_mistake_gives_its_one_message(file: Path) -> None:
    """Each file has one mistake, and the refusal names exactly that one, with its path and the fix."""
    case = orjson.loads(file.read_bytes())
    assert problems(case["policy"]) == [case["problem"]]


def test_the_corpus_is_there() -> None:
    """The one-mistake files are found."""
    assert len(BAD) >= 25


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_examples_are_good(file: Path) -> None:
    """Every example policy is accepted without a warning."""
    assert decode(file.read_bytes()).warnings == []


def test_all_mistakes_at_once() -> None:
    """A document with mistakes in several sections is refused for all of them."""
    found = problems(
        {
            "providers": [{"name": "a b"}],
            "selection": "best",
            "limits": [{"id": "x", "scope": "all", "resource": "tokens", "limit": 1.5}],
            "extra": 1,
        }
    )
    assert [p.split(":")[0] for p in found] == [
        "extra",
        "providers[0].name",
        "providers[0].weight",
        "selection",
        "limits[0].scope",
        "limits[0].window",
        "limits[0].limit",
    ]


def test_a_document_must_be_an_object() -> None:
    """Anything but an object is refused with its type."""
    assert problems([TWO]) == ["expected an object (a policy), got a list"]


def test_text_that_is_not_json() -> None:
    """Broken JSON is refused with its place."""
    with pytest.raises(InvalidInput, match=r"is not JSON: .*line 2 column"):
        decode(b'{"providers":\n[}')


def test_a_document_is_bounded() -> None:
    """More than 64 KiB is refused before it is read."""
    with pytest.raises(InvalidInput, match="65,537 bytes"):
        decode(b" " * (MAX_DOCUMENT_BYTES + 1))


def test_of_repeated_keys_the_last_one_wins() -> None:
    """As for requests: the last of two equal keys counts."""
    last = decode(b'{"providers":[{"name":"a","weight":100}],"providers":[{"name":"b","weight":100}]}')
    assert [p.name for p in last.policy.providers] == ["b"]


def test_usd_becomes_micro_usd() -> None:
    """Costs are USD in the document and whole micro-USD inside."""
    compiled = policy(
        providers=[{"name": "a", "weight": 100, "expected_cost": 0.0025}],
        limits=[
            {"id": "c", "scope": "tenant", "resource": "cost", "limit": 1.5, "window": "1h", "default_estimate": 0.1}
        ],
    )
    cost = compiled.limits[0]
    assert (compiled.providers[0].expected_cost_microusd, cost.limit, cost.default_estimate) == (
        2500,
        1_500_000,
        100_000,
    )


def test_durations() -> None:
    """Durations are read in their units."""
    windows = ["500ms", "60s", "10m", "2h", "7d"]
    limits = [{"id": w, "scope": "tenant", "resource": "requests", "limit": 1, "window": w} for w in windows]
    assert [x.window_ms for x in policy(limits=limits).limits] == [500, 60_000, 600_000, 7_200_000, 604_800_000]


def test_defaults_of_the_sections() -> None:
    """Sections that are given empty are on, with the defaults of the contract."""
    compiled = policy(sticky={}, circuit_breaker={}, fallbacks=[{"to": "b"}])
    sticky, breaker, rule = compiled.sticky, compiled.breaker, compiled.fallbacks[0]
    assert sticky is not None
    assert (sticky.session_key, sticky.ttl_ms) == ("session_id", 600_000)
    assert breaker is not None
    assert (breaker.failure_threshold, breaker.timeout_ms, breaker.when_all_open) == (5, 60_000, WhenAllOpen.FAIL)
    assert (rule.statuses, rule.attributes, rule.retry) == ((), (), 1)


def test_a_disabled_section_is_off() -> None:
    """enabled: false is the same as no section."""
    off = {"enabled": False}
    compiled = policy(sticky=off, circuit_breaker=off, rate_limit={"enabled": False, "requests_per_second": 1})
    assert compiled == policy()


def test_a_limit_with_everything() -> None:
    """All fields of a limit are read."""
    given = {"id": "x", "scope": "user", "resource": "tokens", "limit": 1000, "window": "60s", "default_estimate": 10}
    options = {"algorithm": "sliding", "mode": "shadow", "on_store_error": "allow"}
    x = policy(limits=[{**given, **options}]).limits[0]
    assert (x.id, x.scope, x.resource, x.limit, x.window_ms) == ("x", Scope.USER, Resource.TOKENS, 1000, 60_000)
    assert (x.algorithm, x.shadow, x.on_store_error) == (Algorithm.SLIDING, True, OnStoreError.ALLOW)
    assert x.default_estimate == 10


def test_a_counter_outlives_a_changed_bound() -> None:
    """Raising `limit` keeps the counter; another window, scope or resource is another counter."""
    base = {"id": "x", "scope": "tenant", "resource": "requests", "limit": 10, "window": "60s"}

    def entry(**change: object) -> bytes:
        return policy(limits=[{**base, **change}]).limits[0].entry

    assert entry(limit=20) == entry(mode="shadow") == entry()
    others = [entry(window="61s"), entry(scope="policy"), entry(resource="tokens"), entry(id="y")]
    assert len({entry(), *others}) == 5


def test_concurrency_needs_no_window() -> None:
    """A concurrency limit has no window; a given one is ignored with a warning."""
    given = {"id": "x", "scope": "tenant", "resource": "concurrency", "limit": 10}
    assert policy(limits=[given]).limits[0].window_ms == 0
    assert policy(limits=[{**given, "window": "60s"}]) == policy(limits=[given])
    assert warnings(limits=[{**given, "window": "60s"}])[0].startswith("limits[0].window: does not apply")


def test_fallback_conditions() -> None:
    """Statuses are normalised, and the task type and context fields are matched as attributes."""
    when = {"status": ["timeout", "5xx", 429, "HTTP_503"], "message_type": ["chat"], "context": {"tier": ["gold"]}}
    rule = policy(fallbacks=[{"to": "b", "when": when, "retry": 0}]).fallbacks[0]
    assert rule.statuses == ("timeout", "5xx", "429", "503")
    assert rule.attributes == (("message_type", ("chat",)), ("tier", ("gold",)))
    assert rule.retry == 0


@pytest.mark.parametrize(
    ("one", "listed"),
    [
        ({"status": "timeout"}, {"status": ["timeout"]}),
        ({"status": 503}, {"status": ["503"]}),
        ({"status": "HTTP_5XX", "message_type": "chat"}, {"status": ["5xx"], "message_type": ["chat"]}),
        ({"context": {"tier": "gold"}}, {"context": {"tier": ["gold"]}}),
    ],
)
def test_a_list_of_texts_may_be_a_single_text(one: JsonObject, listed: JsonObject) -> None:
    """In rules and in the `when` of extensions; the canonical form is the list, so the hash is the same."""
    rule, same = (parsed(fallbacks=[{"to": "b", "when": w}]) for w in (one, listed))
    assert (rule.policy.fallbacks, rule.canonical, rule.warnings) == (same.policy.fallbacks, same.canonical, [])
    if "status" not in one:
        pre, same = (parsed(pre=[{"id": "x", "mode": "optional", "when": w}]) for w in (one, listed))
        assert pre.canonical == same.canonical


def test_a_single_condition_of_the_old_form() -> None:
    """`fallback.conditions` too."""
    one, listed = (parsed(fallback={"provider": "b", "conditions": c}) for c in ("timeout", ["timeout"]))
    assert one.canonical == listed.canonical


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ({"status": "nonsense"}, 'fallbacks[0].when.status: "nonsense" is not a status'),
        ({"status": True}, "fallbacks[0].when.status: expected a list"),
        ({"message_type": 5}, "fallbacks[0].when.message_type: expected a string"),
        ({"message_type": ""}, 'fallbacks[0].when.message_type: "" is not 1 to 256'),
        ({"context": {"tier": {}}}, "fallbacks[0].when.context.tier: expected a list"),
    ],
)
def test_a_single_value_that_is_none_is_refused_at_its_path(when: JsonObject, problem: str) -> None:
    """Without an index: there is no list."""
    (found,) = problems(TWO | {"fallbacks": [{"to": "b", "when": when}]})
    assert found.startswith(problem)


def test_a_fallback_to_a_stranger() -> None:
    """`to` may name a provider outside the pool: a warning, and a provider of weight 0."""
    compiled = parsed(fallbacks=[{"to": "c"}, {"to": "b", "when": {"status": ["timeout"]}}])
    assert [(p.name, p.weight) for p in compiled.policy.fallback_providers] == [("c", 0), ("b", 40)]
    assert str(compiled.warnings[0]).startswith('fallbacks[0].to: "c" is not in providers')


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (
            [{"to": "a"}, {"to": "b", "when": {"status": ["timeout"]}}],
            "fallbacks[1]: is never used: fallbacks[0]",
        ),
        (
            [{"to": "a", "when": {"status": ["5xx"]}}, {"to": "b", "when": {"status": [503]}}],
            "fallbacks[1]: is never used: fallbacks[0]",
        ),
        (
            [
                {"to": "a", "when": {"status": ["timeout"]}},
                {"to": "b", "when": {"status": ["5xx"]}},
                {"to": "b", "when": {"status": ["timeout", 503], "message_type": ["chat"]}},
            ],
            "fallbacks[2]: is never used: fallbacks[0], fallbacks[1] match first",
        ),
        ([{"to": "b", "when": {"status": ["success"]}}], "fallbacks[0]: is never used: a success"),
    ],
)
def test_a_fallback_that_nobody_can_reach(rules: list[object], why: str) -> None:
    """A rule behind others that match all it does, or for successes only, is warned about."""
    assert warnings(fallbacks=rules)[0].startswith(why)


def test_a_rate_limit_that_is_off_needs_no_rate() -> None:
    """`enabled: false` is as if the section were absent; what it does hold is looked at all the same."""
    assert policy(rate_limit={"enabled": False}) == policy()
    assert problems({**TWO, "rate_limit": {"enabled": False, "burst": 0}}) == [
        "rate_limit.burst: 0 is outside 1..1000000"
    ]
    assert problems({**TWO, "rate_limit": {}})[0].startswith("rate_limit.requests_per_second: is required")


def test_a_name_that_comes_twice_is_told_beside_other_mistakes() -> None:
    """All at once: not only when the rest is right, and by an old name of the field, too."""
    limit = {"id": "x", "scope": "galaxy", "resource": "requests", "limit": 1, "window": "1s"}
    document = {"providers": [{"name": "a", "weight": "60"}, {"id": "a", "weight": 40}], "limits": [limit, limit]}
    assert [p for p in problems(document) if "is already" in p] == [
        'providers[1].id: "a" is already the name of providers[0] (rename one of the two)',
        'limits[1].id: "x" is already the id of limits[0] (rename one of the two)',
    ]


def test_a_fallback_that_no_dispatched_task_can_reach() -> None:
    """With `retry: 0` a task has one attempt: `to` is for callers who tell the failure themselves. Said once."""
    (warning,) = warnings(fallbacks=[{"to": "b", "retry": 0}])
    assert warning.startswith("fallbacks[0].retry: 0 ends a dispatched task")
    assert "context.status" in warning
    assert warning.endswith("(with 1, the default, a task continues on `to` once)")
    behind = [{"to": "a"}, {"to": "b", "retry": 0}]
    assert [w.split(":")[0] for w in warnings(fallbacks=behind)] == ["fallbacks[1]"]


def test_a_narrower_rule_before_a_wider_one_is_fine() -> None:
    """Rules that can all be reached give no warning."""
    narrow = {"to": "a", "when": {"status": ["timeout"], "message_type": ["chat"]}}
    assert warnings(fallbacks=[narrow, {"to": "b", "when": {"status": ["timeout"]}}, {"to": "a"}]) == []


def test_weights_that_do_not_sum_to_100() -> None:
    """They are relative, so it works, with a warning."""
    odd = warnings(providers=[{"name": "a", "weight": 60}, {"name": "b", "weight": 20}])
    assert odd == ["providers: weights sum to 80, not 100 (shares are relative to the sum)"]


def test_extensions() -> None:
    """Extensions are required and blocking unless they say otherwise."""
    compiled = policy(
        pre=[{"id": "p"}, {"id": "q", "mode": "optional", "when": {"message_type": ["chat"]}, "config": {"x": 1}}],
        validators=[{"id": "v"}, {"id": "w", "on_fail": "warn", "timeout_ms": 250, "retry": 1}],
    )
    assert [e.required for e in compiled.pre] == [True, False]
    assert (compiled.pre[1].when, compiled.pre[1].config) == ({"message_type": ["chat"]}, {"x": 1})
    assert [v.on_fail for v in compiled.validators] == [OnFail.BLOCK, OnFail.WARN]
    assert (compiled.validators[1].timeout_ms, compiled.validators[1].retry) == (250, 1)


def test_best_score_needs_no_weights_that_sum() -> None:
    """With best_score weights do not share, so any sum will do."""
    assert warnings(selection="best_score", providers=[{"name": "a", "weight": 1}]) == []
    assert policy(selection="best_score").selection is Selection.BEST_SCORE


SOLE = {"name": "a", "weight": 0}
FIVE = {"id": "x", "scope": "tenant", "resource": "requests", "limit": 5, "window": "60s"}


class TestWeights:
    """What stands between weights, priorities and fallbacks."""

    @pytest.mark.parametrize("selection", ["weighted", "best_score"])
    @pytest.mark.parametrize("rules", [None, []])
    def test_nobody_can_be_chosen(self, selection: str, rules: list[object] | None) -> None:
        """All weights 0 and no fallback: refused, however one is selected, also when the list of rules is empty."""
        given = {"providers": [SOLE], "selection": selection} | ({} if rules is None else {"fallbacks": rules})
        assert problems(given) == [
            "providers: all weights are 0: no provider could ever be chosen (give one a weight above 0)"
        ]

    def test_a_map_of_zeros(self) -> None:
        """The old form is refused under its own name."""
        assert problems({"weights": {"a": 0}})[0].startswith("weights: all weights are 0")

    def test_only_fallbacks(self) -> None:
        """All weights 0 with a fallback: accepted, and said."""
        odd = warnings(providers=[SOLE], fallbacks=[{"to": "a"}])
        assert odd[0] == "providers: all weights are 0: only fallbacks are used"

    def test_rules_that_are_refused_say_nothing_of_weights(self) -> None:
        """Whether weights of 0 are a mistake depends on rules that could not be read: only those are told."""
        assert [p.split(":")[0] for p in problems({"providers": [SOLE], "fallbacks": [{}]})] == ["fallbacks[0].to"]

    def test_a_provider_that_is_named_nowhere(self) -> None:
        """Weight 0 and no rule that leads there: it never gets anything."""
        pair = [{"name": "a", "weight": 100}, {"name": "b", "weight": 0}]
        assert warnings(providers=pair)[0].startswith('providers[1].weight: is 0 and no fallback leads to "b"')
        assert warnings(providers=None, weights={"a": 1, "b": 0})[0].startswith("weights.b: is 0")
        assert warnings(providers=pair, fallbacks=[{"to": "b"}]) == []

    def test_each_priority_may_sum_to_100(self) -> None:
        """Weights share within a priority: 100 in each reads as well as 100 in all."""

        def tiers(*weights: int) -> list[object]:
            return [{"name": f"p{i}", "weight": w, "priority": i // 2} for i, w in enumerate(weights)]

        assert warnings(providers=tiers(60, 40, 30, 70)) == []
        assert warnings(providers=tiers(30, 20, 25, 25)) == []
        assert warnings(providers=tiers(60, 40, 30, 30))[0].startswith("providers: weights sum to 160, not 100")


@pytest.mark.parametrize(
    ("other", "odd"),
    [
        ({"limit": 9}, "limits[1]: can never refuse: limits[0] is at least as strict (remove one)"),
        ({"limit": 5}, "limits[1]: can never refuse: limits[0] is at least as strict (remove one)"),
        ({"limit": 4}, "limits[0]: can never refuse: limits[1] is at least as strict (remove one)"),
        ({"limit": 4, "mode": "shadow"}, None),
        ({"limit": 9, "window": "61s"}, None),
        ({"limit": 9, "scope": "user"}, None),
    ],
)
def test_a_limit_that_another_makes_pointless(other: JsonObject, odd: str | None) -> None:
    """Of two that count alike the wider never refuses; a shadow one stops nobody, so it makes none pointless."""
    assert warnings(limits=[FIVE, {**FIVE, "id": "y", **other}]) == ([] if odd is None else [odd])


def test_the_old_fallback_is_named_as_it_stands() -> None:
    """Warnings of the old form have its path, not the present form's."""
    assert warnings(fallback="c")[0].startswith('fallback: "c" is not in providers')


class TestOldForms:
    """Documents that exist in the field compile to the same as their present form."""

    @pytest.mark.parametrize("weights", [{"a": 0.6, "b": 0.4}, {"a": 60, "b": 40}])
    def test_weights(self, weights: JsonObject) -> None:
        """A weights map in 0..1 or in 0..100 is the same list of providers."""
        assert policy(providers=None, weights=weights) == policy()

    def test_id_for_name(self) -> None:
        """`id` names a provider, too."""
        assert policy(providers=[{"id": "a", "weight": 60}, {"id": "b", "weight": 40}]) == policy()

    def test_fallback_as_text(self) -> None:
        """`fallback: "b"` is one rule for any failure."""
        assert policy(fallback="b") == policy(fallbacks=[{"to": "b"}])

    def test_fallback_with_conditions(self) -> None:
        """Conditions are statuses."""
        old = policy(fallback={"provider": "b", "conditions": ["timeout", "5xx"]})
        assert old == policy(fallbacks=[{"to": "b", "when": {"status": ["timeout", "5xx"]}}])

    @pytest.mark.parametrize("name", ["ttl_seconds", "ttl_sec"])
    def test_ttl(self, name: str) -> None:
        """Both old names of `ttl` are seconds."""
        assert policy(sticky={name: 90}) == policy(sticky={"ttl": "90s"})

    @pytest.mark.parametrize(
        ("section", "rate_limit"),
        [
            ({"limit": 50, "window": "5s"}, {"enabled": True, "requests_per_second": 10, "burst": 50}),
            ({"limit": 10, "window": "1s"}, {"enabled": True, "requests_per_second": 10}),
            ({"limit": 1, "window": "2s"}, {"requests_per_second": 0.5}),
            ({"limit": 3, "window": "1200ms"}, {"requests_per_second": 2.5}),
        ],
    )
    def test_rate_limit(self, section: JsonObject, rate_limit: JsonObject) -> None:
        """It is a requests limit of the policy: burst (else the rate) in a window of burst / rate."""
        new = {"id": "rate_limit", "scope": "policy", "resource": "requests", **section}
        assert policy(rate_limit=rate_limit) == policy(limits=[new])

    def test_rate_limit_beside_limits(self) -> None:
        """Both are enforced: dropping one would widen what its author wrote down."""
        other = {"id": "x", "scope": "tenant", "resource": "requests", "limit": 5, "window": "1s"}
        compiled = policy(rate_limit={"requests_per_second": 10}, limits=[other])
        assert [x.id for x in compiled.limits] == ["x", "rate_limit"]

    def test_rate_limit_beside_its_successor(self) -> None:
        """A limit with the id rate_limit takes its place, with a warning."""
        new = {"id": "rate_limit", "scope": "policy", "resource": "requests", "limit": 5, "window": "1s"}
        assert policy(rate_limit={"requests_per_second": 10}, limits=[new]) == policy(limits=[new])
        assert warnings(rate_limit={"requests_per_second": 10}, limits=[new])[0].startswith("rate_limit: is ignored")

    @pytest.mark.parametrize(
        ("both", "present", "loser"),
        [
            ({"weights": {"c": 100}}, {}, "weights"),
            ({"fallback": "a", "fallbacks": [{"to": "b"}]}, {"fallbacks": [{"to": "b"}]}, "fallback"),
            ({"sticky": {"ttl": "5s", "ttl_sec": 7}}, {"sticky": {"ttl": "5s"}}, "sticky.ttl_sec"),
            ({"sticky": {"ttl_seconds": 5, "ttl_sec": 7}}, {"sticky": {"ttl": "5s"}}, "sticky.ttl_sec"),
        ],
    )
    def test_new_beside_old(self, both: JsonObject, present: JsonObject, loser: str) -> None:
        """The new one wins, and a warning names the other."""
        assert policy(**both) == policy(**present)
        assert warnings(**both)[0].startswith(f"{loser}: is ignored")


def test_equal_policies_have_equal_hashes() -> None:
    """An old form, spelled-out defaults and another order of keys hash alike; another weight does not."""
    plain = parsed(sticky={"ttl": "600s"})
    spelled = parsed(sticky={"ttl_sec": 600, "enabled": True, "session_key": "session_id"}, version="1", limits=[])
    other = parsed(providers=[{"name": "a", "weight": 61}, {"name": "b", "weight": 39}])
    hashes = [content_hash(encode(p.canonical)) for p in (plain, spelled, other)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_the_hash_is_stable() -> None:
    """The hash of a given policy is part of audit records: it must not change with a release."""
    assert content_hash(encode(parsed().canonical)).hex() == "ec556fb72f2520b4"

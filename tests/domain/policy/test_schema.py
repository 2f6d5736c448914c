"""The published JSON Schema of policies, and the language's canonical form under random documents."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.document import DOCUMENT, canonical, parse
from router.errors import InvalidInput
from router.wire.policies import encode, schema_file
from tests.examples import examples

PUBLISHED = Path(__file__).parents[3] / "docs" / "policy.schema.json"

names = st.sampled_from(["a", "b/c", "openai:gpt", "x.y", "z_1"])
statuses = st.sampled_from(["timeout", "error", "5xx", "429", "success"])
words = st.lists(st.sampled_from(["chat", "embed", "ocr"]), min_size=1, max_size=2, unique=True)
durations = st.sampled_from(["1ms", "500ms", "60s", "90s", "10m", "25h", "7d"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[JsonObject]:
    """Objects in which each of these fields may be absent."""
    return st.fixed_dictionaries({}, optional=fields)


providers = st.lists(
    st.fixed_dictionaries(
        {"name": names, "weight": st.floats(0.5, 100, width=32)},
        optional={
            "priority": st.integers(0, 3),
            "expected_latency_ms": st.integers(0, 5000),
            "expected_cost": st.floats(0, 10),
            "max_concurrency": st.integers(0, 100),
            "endpoint": st.just("http://worker:80/x"),
        },
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda p: p["name"],
)
fallbacks = st.lists(
    st.fixed_dictionaries(
        {"to": names},
        optional={
            "when": some(
                status=st.lists(statuses, min_size=1, max_size=3),
                message_type=words,
                context=st.dictionaries(st.sampled_from(["tier", "region"]), words, max_size=2),
            ),
            "retry": st.integers(0, 10),
            "backoff": some(
                strategy=st.sampled_from(["linear", "fixed"]), base_ms=st.integers(1, 99), jitter=st.booleans()
            ),
        },
    ),
    max_size=3,
)
limits = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abcdef-.:_", min_size=1, max_size=5),
            "scope": st.sampled_from(["tenant", "user", "policy", "provider"]),
            "resource": st.sampled_from(["requests", "concurrency", "cost", "tokens"]),
            "limit": st.integers(1, 10**9),
            "window": durations,
        },
        optional={"mode": st.sampled_from(["enforce", "shadow"]), "on_store_error": st.sampled_from(["deny", "allow"])},
    ),
    max_size=3,
    unique_by=lambda x: x["id"],
)
extensions = st.lists(some(id=st.just("x")).map(lambda e: {"id": "x", **e}), max_size=3)
documents = st.fixed_dictionaries(
    {"providers": providers},
    optional={
        "selection": st.sampled_from(["weighted", "best_score"]),
        "sticky": some(enabled=st.booleans(), session_key=names, ttl=st.sampled_from(["1s", "10m"])),
        "fallbacks": fallbacks,
        "circuit_breaker": some(failure_threshold=st.integers(1, 9), error_rate_threshold=st.floats(0.1, 1)),
        "limits": limits,
        "rate_limit": st.fixed_dictionaries({"requests_per_second": st.floats(0.01, 1e5)}),
        "pre": extensions,
        "post": extensions,
        "validators": extensions,
        "metadata": some(x=st.integers(-(2**63), 2**63), y=st.text(max_size=5)),
    },
)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A good document in which one value, somewhere, is replaced by anything."""
    document: Any = draw(documents)
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return document
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            place[key] = draw(anything)
            return document
        place = place[key]


@examples(200)
@given(spoilt() | anything)
def test_any_json_is_read_or_refused(document: JsonValue) -> None:
    """Whatever comes, it is a policy or an InvalidInput with problems that can be printed; never another exception."""
    try:
        read = bool(parse(document).policy.providers)
    except InvalidInput as refused:
        read = bool(refused.problems) and all(str(p) for p in refused.problems)
    assert read


def test_a_document_of_strangers_is_refused_quickly() -> None:
    """Ten thousand unknown fields are all named, without a search for near names in each."""
    with pytest.raises(InvalidInput) as refused:
        parse({f"fallback{n}": n for n in range(10_000)})
    assert len(refused.value.problems) == 10_001
    assert refused.value.problems[0].hint == "did you mean `fallback`?"
    assert "did you mean" not in refused.value.problems[9_000].hint


def test_the_published_schema_is_the_codes() -> None:
    """docs/policy.schema.json is what the tables say (`router.wire.policies.schema_file` writes it)."""
    assert PUBLISHED.read_bytes() == schema_file()


def test_the_schema_knows_every_field_and_no_other() -> None:
    """Every field of the document, old names included, is a property, and others are refused."""
    schema = orjson.loads(schema_file())
    known = {name for f in DOCUMENT.fields for name in (f.name, *(old for old, _ in f.old))}
    assert set(schema["properties"]) == known
    assert schema["additionalProperties"] is False


@examples(150)
@given(documents)
def test_the_canonical_document_says_the_same(document: JsonObject) -> None:
    """Canonical bytes parse to the same policy, without loss, and are their own canonical form."""
    first = parse(document)
    again = parse(orjson.loads(encode(first.canonical)))
    assert again.policy == first.policy
    assert encode(canonical(again.policy)) == encode(first.canonical)

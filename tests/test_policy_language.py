"""The reference's chapter on the policy language: its examples run, and it names every field there is."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.domain.policy.document import DOCUMENT
from router.domain.policy.model import StoredPolicy
from router.errors import InvalidInput
from router.wire.policies import decode, encode
from router.wire.request.decide import decode as decode_request

DOCS = Path(__file__).parents[1] / "docs"
FILES = sorted((DOCS / "policy_examples").glob("*.json"))


def outcome(policy: Any, request: Any) -> dict[str, Any]:
    """All that an example may show: what the parser says of the policy, and what is planned for the request."""
    try:
        parsed = decode(orjson.dumps(policy))
    except InvalidInput as refused:
        return {"refused": [str(p) for p in refused.problems]}
    said: dict[str, Any] = {"warnings": [str(w) for w in parsed.warnings], "stored_as": parsed.canonical}
    if request is not None:
        wanted = decode_request(orjson.dumps(request), None, None)
        assert isinstance(wanted, DecideRequest), wanted
        said |= planned(plan(wanted, StoredPolicy(wanted.policy_id, 1, "0" * 16, parsed.policy)))
    return said


def planned(made: Plan) -> dict[str, Any]:
    """A plan in plain words."""
    return {
        "candidates": [f"{c.provider.name} ({c.reason.label})" for c in made.candidates],
        "passed_over": [f"{v.provider_id} ({v.verdict.label})" for v in made.passed_over],
        "charges": {c.limit.id: c.units for c in made.charges},
        "charged_per_provider": {c.provider.name: {x.limit.id: x.units for x in c.charges} for c in made.candidates},
        "pin": None if made.pin is None else {"session": made.pin.key, "ttl_ms": made.pin.ttl_ms},
        "max_attempts": made.max_attempts,
        "deadline_ms": made.deadline_ms,
    }


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_an_example_gives_what_the_reference_says(file: Path) -> None:
    """Parsed and planned, the example gives exactly what is printed beside it, and no warning that is not."""
    one = orjson.loads(file.read_bytes())
    said = outcome(one["policy"], one.get("request"))
    assert {k: said.get(k) for k in one["gives"]} == one["gives"]
    assert not said.get("warnings") or "warnings" in one["gives"]


def test_the_examples_are_there() -> None:
    """The files are found, and each is in the reference."""
    assert len(FILES) >= 10
    reference = (DOCS / "REFERENCE.md").read_text()
    assert all(f"policy_examples/{file.name}" in reference for file in FILES)


def test_the_examples_use_every_section() -> None:
    """Together the examples hold every top-level field of the language, old names included."""
    used = {name for file in FILES for name in orjson.loads(file.read_bytes())["policy"]}
    known = {name for f in DOCUMENT.fields for name in (f.name, *(old for old, _ in f.old))}
    assert used >= known - {"version"}


def test_stored_documents_are_stored_alike_again() -> None:
    """What an example is stored as is its own stored form."""
    for file in FILES:
        said = outcome(orjson.loads(file.read_bytes())["policy"], None)
        if "refused" not in said:
            assert decode(encode(said["stored_as"])).canonical == said["stored_as"]

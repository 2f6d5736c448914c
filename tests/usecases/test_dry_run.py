"""A dry run refuses what a decide would refuse before its row, and asks the store nothing then."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from router.domain.decision import Answer, Code, Refused
from router.domain.figures import NO_FIGURES
from router.domain.outcome import Outcome
from router.domain.plan import ALL_FEATURES, Features, Plan
from router.domain.policy import StoredPolicy
from router.domain.request import DecideRequest, Options
from router.usecases.dry_run import DryRun
from router.usecases.intake import DecideSettings
from router.wire.policies import decode
from tests.usecases.test_decide import ADMITTED, Store

BASELINE = Features(pins=False, retries=False, best_score=False, explain=False, extensions=False, multi_tenant=True)


class Looks(Store):
    """Admits every look at once, and counts them."""

    def look(
        self, request: DecideRequest, plan: Plan, done: Callable[[Outcome, bytes], None], *, claim_ms: int = 0
    ) -> None:
        """Admitted."""
        self.rows.append(done)
        done(ADMITTED, b"")


async def asked(features: Features, request: DecideRequest, **policy: Any) -> tuple[Answer, int]:
    """The answer to a dry run, and how often the store was looked at."""
    document = {"providers": [{"name": "a", "weight": 100}], **policy}
    stored = StoredPolicy("default", 1, "h", decode(orjson.dumps(document)).policy)
    looks = Looks()
    run = DryRun(looks, lambda: features, DecideSettings(), lambda _: NO_FIGURES)
    return await asyncio.wait_for(run.ask(request, stored), 1), len(looks.rows)


def request(**more: Any) -> DecideRequest:
    """One of acme."""
    return DecideRequest("acme", "r", "default", "chat", bytes(8), **more)


async def test_a_required_extension_that_the_gate_closes() -> None:
    """Refused with the checkpoint that it needs, as the request itself would be; an optional one is ignored."""
    required, looks = await asked(BASELINE, request(), pre=[{"id": "mask"}])
    assert isinstance(required, Refused)
    assert (required.code, required.details["requires_cp"], looks) == (Code.EXTENSION_UNAVAILABLE, "CP2-LC", 0)
    optional, looks = await asked(BASELINE, request(), pre=[{"id": "mask", "mode": "optional"}])
    assert not isinstance(optional, Refused)
    assert looks == 1


async def test_a_deadline_above_the_bound() -> None:
    """As the request itself would be."""
    late, looks = await asked(ALL_FEATURES, request(options=Options(deadline_ms=1_800_001)))
    assert isinstance(late, Refused)
    assert (late.code, looks) == (Code.INVALID_REQUEST, 0)
    assert "options.deadline_ms" in late.message


async def test_a_payload_that_could_not_be_dispatched() -> None:
    """Too large for a pushed request, and fine for one whose caller runs it."""
    large = {"x": "y" * 70_000}
    pushed, looks = await asked(ALL_FEATURES, request(payload=large, push_assignment=True))
    assert isinstance(pushed, Refused)
    assert (pushed.details["intake_error_code"], looks) == ("PAYLOAD_TOO_LARGE", 0)
    kept, looks = await asked(ALL_FEATURES, request(payload=large))
    assert not isinstance(kept, Refused)
    assert looks == 1

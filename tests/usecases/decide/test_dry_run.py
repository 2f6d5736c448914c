"""A dry run refuses what a decide would refuse before its row, and asks the store nothing then."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from router.domain.decide.decision import Answer, Code, Decided, Refused
from router.domain.decide.figures import NO_FIGURES
from router.domain.decide.outcome import Outcome
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest, Options
from router.domain.extensions.health import ExtensionRecord
from router.domain.extensions.pipeline import ExtensionName, Stage
from router.domain.gate import ALL_FEATURES, Features
from router.domain.levers import BreakerState
from router.domain.policy.model import StoredPolicy
from router.usecases.decide.dry_run import DryRun
from router.usecases.decide.intake import DecideSettings
from router.wire.policies import decode
from tests.usecases.fakes.decisions import ADMITTED, Store
from tests.usecases.fakes.extensions import Records

BASELINE = Features(pins=False, retries=False, best_score=False, explain=False, extensions=False, multi_tenant=True)


class Looks(Store):
    """Admits every look at once, and counts them."""

    def preview(
        self,
        request: DecideRequest,
        plan: Plan,
        done: Callable[[Outcome, bytes], None],
        *,
        claim_ms: int = 0,
        since: float | None = None,
    ) -> None:
        """Admitted."""
        self.rows.append(done)
        done(ADMITTED, b"")


class Known(Records):
    """Knows the extension pre.mask, whose breaker is so."""

    def __init__(self, state: BreakerState, open_until_ms: int) -> None:
        super().__init__()
        self.mask = ExtensionRecord(
            ExtensionName(Stage.PRE, "mask"), state, 1, open_until_ms, 5, 0, 5, 0, 0, 0, 0, bytes(8), 0, []
        )

    async def records(self) -> list[ExtensionRecord]:
        """The one."""
        return [self.mask]


async def asked(
    features: Features, request: DecideRequest, extensions: Records | None = None, **policy: Any
) -> tuple[Answer, int]:
    """The answer to a dry run, and how often the store was looked at."""
    document = {"providers": [{"name": "a", "weight": 100}], **policy}
    stored = StoredPolicy("default", 1, "h", decode(orjson.dumps(document)).policy)
    looks = Looks()
    run = DryRun(looks, lambda: features, DecideSettings(), lambda _: NO_FIGURES, extensions or Records())
    return await asyncio.wait_for(run.answer(request, stored), 1), len(looks.rows)


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


NEVER_MS = 2**53


async def test_a_required_extension_whose_breaker_is_open() -> None:
    """Refused in the words of a decide, which would not call it either; one that can be done without is named only."""
    shut = Known(BreakerState.OPEN, NEVER_MS)
    required, _ = await asked(ALL_FEATURES, request(), shut, pre=[{"id": "mask"}])
    assert isinstance(required, Refused)
    assert (required.code, required.details["reason"]) == (Code.EXTENSION_UNAVAILABLE, "its breaker is open")
    optional, _ = await asked(ALL_FEATURES, request(), shut, pre=[{"id": "mask", "mode": "optional"}])
    assert isinstance(optional, Decided)
    assert optional.explain is not None
    assert optional.explain["extensions"] == [{"extension_id": "mask", "stage": "pre", "status": "unhealthy"}]


async def test_an_extension_that_may_be_tried_or_is_for_others() -> None:
    """The next request would call it, or none of this type would: no refusal."""
    tried, _ = await asked(ALL_FEATURES, request(), Known(BreakerState.OPEN, 0), pre=[{"id": "mask"}])
    assert isinstance(tried, Decided)
    when = {"message_type": ["ocr"]}
    others, _ = await asked(
        ALL_FEATURES, request(), Known(BreakerState.OPEN, NEVER_MS), pre=[{"id": "mask", "when": when}]
    )
    assert isinstance(others, Decided)


async def test_an_extension_of_another_stage_and_one_never_called() -> None:
    """The same id elsewhere is another service; what was never called has no status."""
    found, _ = await asked(ALL_FEATURES, request(), Known(BreakerState.OPEN, NEVER_MS), post=[{"id": "mask"}])
    assert isinstance(found, Decided)
    assert found.explain is not None
    assert found.explain["extensions"] == [{"extension_id": "mask", "stage": "post", "status": None}]

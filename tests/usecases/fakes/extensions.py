"""Extensions in memory: what they are sent, what they answer, and a store of their records that may be away."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from router.domain.extensions.health import ExtensionRecord, Settled, Tally
from router.domain.extensions.pipeline import ExtensionName
from router.domain.levers import BreakerState
from router.errors import StoreUnavailable
from router.ports.extensions import CallFailure

Answer = bytes | CallFailure | Mapping[str, Any]


class Calls:
    """`ports.extensions.ExtensionCalls`: each subject's answers in order, the last one repeatedly.

    A timeout takes its time.
    """

    def __init__(self, **answers: Answer | Sequence[Answer]) -> None:
        self.answers: dict[str, list[Answer]] = {}
        for name, given in answers.items():
            stage, _, extension_id = name.partition("_")
            listed = [given] if isinstance(given, bytes | CallFailure | Mapping) else list(given)
            self.answers[f"beamline.ext.{stage}.{extension_id}.v1"] = listed
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[Mapping[str, str]] = []

    async def call(self, subject: str, body: bytes, headers: Mapping[str, str], timeout_ms: int) -> bytes | CallFailure:
        """Written down and answered."""
        self.sent.append((subject, orjson.loads(body)))
        self.headers.append(headers)
        waiting = self.answers.get(subject, [CallFailure.NO_RESPONDERS])
        answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        await asyncio.sleep(timeout_ms / 1000 if answer is CallFailure.TIMEOUT else 0)
        return answer if isinstance(answer, bytes | CallFailure) else orjson.dumps(answer)

    def of(self, name: str) -> list[dict[str, Any]]:
        """What `<stage>.<id>` was sent."""
        return [body for subject, body in self.sent if subject == f"beamline.ext.{name}.v1"]


class Records:
    """`ports.extensions.ExtensionStore`: adds up, turns no breaker; `state` is every breaker's, `probe` its holder."""

    def __init__(self) -> None:
        self.up = True
        self.answers = asyncio.Event()
        self.answers.set()
        self.state = BreakerState.CLOSED
        self.grants = True
        self.asked = 0
        self.totals: dict[ExtensionName, list[int]] = {}
        self.told = asyncio.Event()

    async def settle(self, tallies: Sequence[Tally]) -> list[Settled]:
        """Added."""
        self.asked += 1
        await self.answers.wait()
        if not self.up:
            raise StoreUnavailable("away")
        found = []
        for t in tallies:
            total = self.totals.setdefault(t.name, [0, 0])
            total[0] += t.good
            total[1] += t.bad
            found.append(Settled(self._record(t), None))
        self.told.set()
        return found

    def _record(self, t: Tally) -> ExtensionRecord:
        good, bad = self.totals[t.name]
        probe = t.probe if self.grants else b"somebody"
        return ExtensionRecord(t.name, self.state, 1, 2, 0, good, bad, 0, 0, 0, 0, probe, 0, [])

    async def records(self) -> list[ExtensionRecord]:
        """None was called."""
        return []

"""The calls around one decision: each extension within its timeout and retries, all within one deadline.

Never raises for what an extension does: a step says what came of it, and whether the request ends there.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from router.domain.extensions import BREAKER_IS_OPEN, RETRY_PAUSE_MS, Called, Name, Reply, Stage, Step, wanted
from router.domain.json import JsonObject
from router.domain.policy.model import Extension
from router.domain.request import DecideRequest
from router.ports.extensions import ExtensionCalls, Missed
from router.telemetry import Telemetry
from router.usecases.extensions.health_watch import ExtensionWatch
from router.wire.extensions import call_headers, decode_reply, encode_call, subject

_MISSED = {
    Missed.TIMEOUT: Called.TIMEOUT,
    Missed.NOBODY: Called.UNAVAILABLE,
    Missed.NOT_SENT: Called.UNAVAILABLE,
    Missed.TOO_LARGE: Called.ERROR,
}
# These say nothing of the extension.
_OURS = (Missed.NOT_SENT, Missed.TOO_LARGE)


class Pipeline:
    """Runs the stages. `until` is the loop's time at which every call has ended."""

    def __init__(self, calls: ExtensionCalls, watch: ExtensionWatch, telemetry: Telemetry) -> None:
        self._calls = calls
        self._watch = watch
        self._counts = telemetry.extension_calls
        self._seconds = {stage: telemetry.extension_seconds.child(stage.value) for stage in Stage}
        self._now = asyncio.get_running_loop().time

    async def pre(
        self, request: DecideRequest, extensions: Sequence[Extension], until: float
    ) -> tuple[DecideRequest, list[Step]]:
        """One after the other, each sees what the one before made of the request; the request as they leave it.

        Ends with the first step that stops the request. The fingerprint stays that of the request as it came.
        """
        steps: list[Step] = []
        for extension in wanted(extensions, request):
            step = await self._step(Stage.PRE, extension, request, request.metadata, until)
            steps.append(step)
            if step.stops:
                break
            if step.reply is not None:
                request = _changed(request, step.reply)
        return request, steps

    async def validate(self, request: DecideRequest, extensions: Sequence[Extension], until: float) -> list[Step]:
        """All at once; the steps are in the policy's order."""
        asked = wanted(extensions, request)
        return list(
            await asyncio.gather(*(self._step(Stage.VALIDATE, e, request, request.metadata, until) for e in asked))
        )

    async def post(
        self, request: DecideRequest, decision: JsonObject, extensions: Sequence[Extension], until: float
    ) -> list[Step]:
        """One after the other, each told the decision in `metadata.decision`; ends with the first that stops."""
        steps: list[Step] = []
        for extension in extensions:
            step = await self._step(Stage.POST, extension, request, {**request.metadata, "decision": decision}, until)
            steps.append(step)
            if step.stops:
                break
        return steps

    async def _step(
        self, stage: Stage, extension: Extension, request: DecideRequest, metadata: JsonObject, until: float
    ) -> Step:
        name, began, calls = Name(stage, extension.id), self._now(), 0
        body, headers = encode_call(request, metadata, extension.config), call_headers(request)
        outcome, reply, reason = Called.TIMEOUT, None, "the time for all extensions is up"
        while (timeout_ms := min(extension.timeout_ms, int((until - self._now()) * 1000))) >= 1:
            admission = await self._watch.admit(name, timeout_ms)
            if admission is None:
                outcome, reason = Called.UNAVAILABLE, BREAKER_IS_OPEN
                break
            calls += 1
            started = self._now()
            answer = await self._calls.call(subject(name), body, headers, timeout_ms)
            took = self._now() - started
            outcome, reply, reason = _read(answer, stage)
            self._counts.labels(stage.value, outcome.value).inc()
            self._seconds[stage].observe(took)
            cut_short = answer is Missed.TIMEOUT and timeout_ms < extension.timeout_ms
            if answer not in _OURS and not cut_short:
                self._watch.saw(name, not outcome.failed, int(took * 1000), admission)
            if not outcome.failed or calls > extension.retry or answer is Missed.TOO_LARGE:
                break
            await asyncio.sleep(RETRY_PAUSE_MS / 1000)
        if calls == 0:
            self._counts.labels(stage.value, outcome.value).inc()
        return Step(name, extension, outcome, calls, int((self._now() - began) * 1000), reason, reply)


def _read(answer: bytes | Missed, stage: Stage) -> tuple[Called, Reply | None, str]:
    if isinstance(answer, Missed):
        return _MISSED[answer], None, answer.value
    reply = decode_reply(answer, stage)
    if isinstance(reply, str):
        return Called.ERROR, None, reply
    return Called.REJECTED if reply.rejected else Called.OK, reply, reply.reason if reply.rejected else ""


def _changed(request: DecideRequest, reply: Reply) -> DecideRequest:
    """The request with what a pre extension gave; of metadata the fields that it gave."""
    if reply.changes_payload:
        request = replace(request, payload=reply.payload)
    return replace(request, metadata={**request.metadata, **reply.metadata}) if reply.metadata else request

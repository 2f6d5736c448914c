"""The extension calls around one decision: each within its timeout and retries, all within one deadline.

An extension's behaviour never raises: its `domain.extensions.pipeline.ExtensionStep` holds the outcome, and whether the
request stops.
"""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from router.domain.decide.request import DecideRequest
from router.domain.extensions.pipeline import (
    BREAKER_IS_OPEN,
    RETRY_PAUSE_MS,
    CallOutcome,
    ExtensionName,
    ExtensionStep,
    Reply,
    Stage,
    wanted,
)
from router.domain.json import JsonObject
from router.domain.policy.model import Extension
from router.ports.extensions import CallFailure, ExtensionCalls
from router.telemetry import Telemetry
from router.usecases.extensions.health_watch import ExtensionHealthWatch
from router.usecases.messages.input_defects import InputDefects
from router.wire.extensions import call_headers, decode_reply, encode_call, subject

_OUTCOME_OF = {
    CallFailure.TIMEOUT: CallOutcome.TIMEOUT,
    CallFailure.NO_RESPONDERS: CallOutcome.UNAVAILABLE,
    CallFailure.NOT_SENT: CallOutcome.UNAVAILABLE,
    CallFailure.TOO_LARGE: CallOutcome.ERROR,
}
# Faults on this side: they do not count against the extension's health.
_OUR_FAULTS = (CallFailure.NOT_SENT, CallFailure.TOO_LARGE)


class Pipeline:
    """Runs the stages. `deadline` is a loop time in s: every call ends before it."""

    def __init__(self, calls: ExtensionCalls, watch: ExtensionHealthWatch, telemetry: Telemetry) -> None:
        self._calls = calls
        self._watch = watch
        self._counts = telemetry.extension_calls
        self._defects = InputDefects(telemetry, "extension reply")
        self._seconds = {stage: telemetry.extension_seconds.child(stage.value) for stage in Stage}
        self._now = asyncio.get_running_loop().time

    async def pre(
        self, request: DecideRequest, extensions: Sequence[Extension], deadline: float
    ) -> tuple[DecideRequest, list[ExtensionStep]]:
        """Call pre extensions in order; each gets the request as the previous one changed it. Return the final request.

        The first step that stops the request is the last. The fingerprint stays that of the original request.
        """
        steps: list[ExtensionStep] = []
        for extension in wanted(extensions, request):
            step = await self._step(
                stage=Stage.PRE, extension=extension, request=request, metadata=request.metadata, deadline=deadline
            )
            steps.append(step)
            if step.stops:
                break
            if step.reply is not None:
                request = _with_changes(request, step.reply)
        return request, steps

    async def validate(
        self, request: DecideRequest, extensions: Sequence[Extension], deadline: float
    ) -> list[ExtensionStep]:
        """Call all validators at once; the steps are in the policy's order."""
        matching = wanted(extensions, request)
        return list(
            await asyncio.gather(
                *(
                    self._step(
                        stage=Stage.VALIDATE, extension=e, request=request, metadata=request.metadata, deadline=deadline
                    )
                    for e in matching
                )
            )
        )

    async def post(
        self, request: DecideRequest, decision: JsonObject, extensions: Sequence[Extension], deadline: float
    ) -> list[ExtensionStep]:
        """Call post extensions in order, with the decision in `metadata.decision`; the first that stops is the last."""
        steps: list[ExtensionStep] = []
        for extension in extensions:
            step = await self._step(
                stage=Stage.POST,
                extension=extension,
                request=request,
                metadata={**request.metadata, "decision": decision},
                deadline=deadline,
            )
            steps.append(step)
            if step.stops:
                break
        return steps

    async def _step(
        self, stage: Stage, extension: Extension, request: DecideRequest, metadata: JsonObject, deadline: float
    ) -> ExtensionStep:
        name, started_all, calls = ExtensionName(stage, extension.id), self._now(), 0
        body, headers = encode_call(request, metadata, config=extension.config), call_headers(request)
        outcome, reply, reason = CallOutcome.TIMEOUT, None, "the time for all extensions is up"
        while (timeout_ms := min(extension.timeout_ms, int((deadline - self._now()) * 1000))) >= 1:
            admission = await self._watch.admit(name, timeout_ms)
            if admission is None:
                outcome, reason = CallOutcome.UNAVAILABLE, BREAKER_IS_OPEN
                break
            calls += 1
            started = self._now()
            answer = await self._calls.call(subject(name), body, headers, timeout_ms)
            took = self._now() - started
            outcome, reply, reason = _read(answer, stage)
            if reply is not None:
                self._defects.count(reply.warnings, request.tenant_id)
            self._counts.labels(stage.value, outcome.value).inc()
            self._seconds[stage].observe(took)
            cut_short = answer is CallFailure.TIMEOUT and timeout_ms < extension.timeout_ms
            if answer not in _OUR_FAULTS and not cut_short:
                self._watch.record(name, not outcome.failed, int(took * 1000), admission)
            if not outcome.failed or calls > extension.retry or answer is CallFailure.TOO_LARGE:
                break
            await asyncio.sleep(RETRY_PAUSE_MS / 1000)
        if calls == 0:
            self._counts.labels(stage.value, outcome.value).inc()
        return ExtensionStep(
            name=name,
            extension=extension,
            outcome=outcome,
            calls=calls,
            took_ms=int((self._now() - started_all) * 1000),
            reason=reason,
            reply=reply,
        )


def _read(answer: bytes | CallFailure, stage: Stage) -> tuple[CallOutcome, Reply | None, str]:
    if isinstance(answer, CallFailure):
        return _OUTCOME_OF[answer], None, answer.value
    reply = decode_reply(answer, stage)
    if isinstance(reply, str):
        return CallOutcome.ERROR, None, reply
    return CallOutcome.REJECTED if reply.rejected else CallOutcome.OK, reply, reply.reason if reply.rejected else ""


def _with_changes(request: DecideRequest, reply: Reply) -> DecideRequest:
    """Apply a pre extension's changes to the request: its payload, and the metadata fields in its reply."""
    if reply.changes_payload:
        request = replace(request, payload=reply.payload)
    return replace(request, metadata={**request.metadata, **reply.metadata}) if reply.metadata else request

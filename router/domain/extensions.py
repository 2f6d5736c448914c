"""The pipeline around a decision: which extensions a request calls, the outcome of a call, and what follows from it.

    pre, in order → validators, all at once → the decision → post, in order

If an optional extension fails, the request continues without it; the explanation names it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never, cast

from msgspec import Struct

from router.domain.candidates import attribute
from router.domain.decision import Code, Refused
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import Extension, OnFail, Policy
from router.domain.request import DecideRequest

RETRY_PAUSE_MS = 20
MAX_REASON = 1024
BREAKER_IS_OPEN = "its breaker is open"
# The audit code of a request that ended at an extension, in place of the script's code.
AUDIT_CODES = {
    Code.VALIDATOR_BLOCKED: 32,
    Code.EXTENSION_UNAVAILABLE: 33,
    Code.EXTENSION_TIMEOUT: 34,
    Code.EXTENSION_ERROR: 35,
}


class Stage(StrEnum):
    """The stage in the pipeline: the word in the extension's subject."""

    PRE = "pre"
    VALIDATE = "validate"
    POST = "post"


class Called(StrEnum):
    """The outcome of calling one extension for one request."""

    OK = "ok"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    ERROR = "error"

    @property
    def failed(self) -> bool:
        """Whether the extension failed. A validator that refuses has done its work."""
        return self not in (Called.OK, Called.REJECTED)


class Name(Struct, frozen=True):
    """One extension of the fleet. The same id at two stages means two services."""

    stage: Stage
    id: str

    @property
    def text(self) -> str:
        """The stored and displayed form: `<stage>.<id>`."""
        return f"{self.stage.value}.{self.id}"


class Reply(Struct, frozen=True):
    """The reply of an extension. `payload` counts only if `changes_payload`, because null is a payload, too."""

    payload: JsonValue = None
    changes_payload: bool = False
    metadata: JsonObject = {}
    rejected: bool = False
    reason: str = ""
    details: JsonObject = {}


class Step(Struct, frozen=True):
    """One finished extension: its outcome, calls, and ms in all. `reply` only if it answered."""

    name: Name
    extension: Extension
    outcome: Called
    calls: int
    took_ms: int
    reason: str = ""
    reply: Reply | None = None

    @property
    def stops(self) -> bool:
        """Whether the request ends here."""
        match self.name.stage:
            case Stage.VALIDATE:
                return self.outcome is not Called.OK and self.extension.on_fail is OnFail.BLOCK
            case Stage.PRE | Stage.POST:
                return self.outcome.failed and self.extension.required
            case _:
                assert_never(self.name.stage)

    @property
    def warns(self) -> bool:
        """Whether the answer carries a warning about it."""
        if self.name.stage is Stage.VALIDATE:
            return self.outcome is not Called.OK and self.extension.on_fail is OnFail.WARN
        return False


_CODES = {
    Called.REJECTED: Code.VALIDATOR_BLOCKED,
    Called.TIMEOUT: Code.EXTENSION_TIMEOUT,
    Called.UNAVAILABLE: Code.EXTENSION_UNAVAILABLE,
    Called.ERROR: Code.EXTENSION_ERROR,
}
_WORDS = {
    Called.TIMEOUT: "did not answer in time",
    Called.UNAVAILABLE: "is not available",
    Called.ERROR: "gave an unusable answer",
}


def wanted(extensions: Sequence[Extension], request: DecideRequest) -> list[Extension]:
    """The extensions whose `when` matches the request, in the policy's order."""
    return [e for e in extensions if _fits(e.when, request)]


def wanted_of(policy: Policy, request: DecideRequest) -> list[tuple[Stage, Extension]]:
    """All extensions that the request calls, in the pipeline's order."""
    stages = ((Stage.PRE, policy.pre), (Stage.VALIDATE, policy.validators), (Stage.POST, policy.post))
    return [(stage, e) for stage, kind in stages for e in wanted(kind, request)]


def _fits(when: JsonObject, request: DecideRequest) -> bool:
    if not when:
        return True
    types = cast(list[str], when.get("message_type") or [])
    if types and request.task_type not in types:
        return False
    context = cast(dict[str, list[str]], when.get("context") or {})
    return all(attribute(name, request) in values for name, values in context.items())


def worst_ms(policy: Policy, max_ms: int) -> int:
    """The longest time of the pipeline, where every call fails at its timeout; at most `max_ms`."""
    total = sum(_worst_of(e) for e in (*policy.pre, *policy.post))
    total += max((_worst_of(e) for e in policy.validators), default=0)
    return min(max_ms, total)


def worst_latency_ms(policy: Policy) -> int:
    """The time of the pipeline when every extension times out once."""
    in_order = sum(e.timeout_ms for e in (*policy.pre, *policy.post))
    return in_order + max((e.timeout_ms for e in policy.validators), default=0)


def _worst_of(e: Extension) -> int:
    return (1 + e.retry) * (e.timeout_ms + RETRY_PAUSE_MS)


def refusal(step: Step) -> Refused:
    """The answer to a request that ends at this step."""
    details: JsonObject = {"extension_id": step.name.id, "stage": step.name.stage.value}
    if step.reason:
        details["reason"] = step.reason
    if step.outcome is Called.REJECTED:
        if step.reply is not None and step.reply.details:
            details["details"] = step.reply.details
        return Refused(Code.VALIDATOR_BLOCKED, f"validator {step.name.id} refused the request", details)
    message = f"extension {step.name.id} ({step.name.stage}) {_WORDS[step.outcome]}"
    details["calls"] = step.calls
    code = _CODES[step.outcome]
    if step.name.stage is Stage.POST:
        details["cause"] = code.value
        return Refused(Code.POST_PROCESSOR_FAILED, f"{message}; nothing was dispatched", details)
    return Refused(code, message, details)


def warnings(steps: Sequence[Step]) -> list[JsonValue]:
    """The warnings of validators with `on_fail: warn`, for decision.metadata."""
    return [_told({"extension_id": s.name.id, "outcome": s.outcome.value}, s) for s in steps if s.warns]


def explained(steps: Sequence[Step]) -> list[JsonValue]:
    """All steps, for the explanation."""
    return [
        _told(
            {
                "extension_id": s.name.id,
                "stage": s.name.stage.value,
                "outcome": s.outcome.value,
                "calls": s.calls,
                "took_ms": s.took_ms,
            },
            s,
        )
        for s in steps
    ]


def _told(fields: JsonObject, step: Step) -> JsonObject:
    return {**fields, "reason": step.reason} if step.reason else fields


def post_metadata(steps: Sequence[Step]) -> JsonObject:
    """The fields that post extensions add to decision.metadata; later ones win."""
    merged: JsonObject = {}
    for s in steps:
        if s.reply is not None and s.name.stage is Stage.POST:
            merged |= s.reply.metadata
    return merged

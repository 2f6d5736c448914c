"""The pipeline of extensions around a decision: which extensions a request calls, and the effect of their outcomes.

    pre, in order → validators, all at once → the decision → post, in order

If an extension fails that the policy does not require, the request continues without it, and the explanation names it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import assert_never, cast

from msgspec import Struct

from router.domain.decide.candidates import attribute
from router.domain.decide.decision import Code, Refused
from router.domain.decide.request import DecideRequest
from router.domain.defects import Warnings
from router.domain.json import JsonObject, JsonValue
from router.domain.policy.model import Extension, Policy
from router.domain.policy.vocabulary import OnFail

RETRY_PAUSE_MS = 20
MAX_REASON = 1024
BREAKER_IS_OPEN = "its breaker is open"
# The audit code of a request that ended at an extension, so the script has no code for it.
AUDIT_CODES = {
    Code.VALIDATOR_BLOCKED: 32,
    Code.EXTENSION_UNAVAILABLE: 33,
    Code.EXTENSION_TIMEOUT: 34,
    Code.EXTENSION_ERROR: 35,
}


class Stage(StrEnum):
    """The stage of the pipeline at which an extension is called; the word in the extension's subject."""

    PRE = "pre"
    VALIDATE = "validate"
    POST = "post"


class CallOutcome(StrEnum):
    """The outcome of calling one extension for one request."""

    OK = "ok"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    ERROR = "error"

    @property
    def failed(self) -> bool:
        """Whether the extension itself failed. A validator that rejects a request works as intended."""
        return self not in (CallOutcome.OK, CallOutcome.REJECTED)


class ExtensionName(Struct, frozen=True):
    """The name of one extension of the fleet. The same id at two stages names two services."""

    stage: Stage
    id: str

    @property
    def text(self) -> str:
        """The stored and displayed form: `<stage>.<id>`."""
        return f"{self.stage.value}.{self.id}"


class Reply(Struct, frozen=True):
    """The reply of an extension. `payload` is valid only if `changes_payload`, because null can be a payload."""

    payload: JsonValue = None
    changes_payload: bool = False
    metadata: JsonObject = {}
    rejected: bool = False
    reason: str = ""
    details: JsonObject = {}
    warnings: Warnings = ()


class ExtensionStep(Struct, frozen=True):
    """The result of one extension: the outcome, the number of calls, and their total duration.

    `reply` None: the extension gave no usable reply.
    """

    name: ExtensionName
    extension: Extension
    outcome: CallOutcome
    calls: int
    took_ms: int
    reason: str = ""
    reply: Reply | None = None

    @property
    def stops(self) -> bool:
        """Whether the request ends at this step."""
        match self.name.stage:
            case Stage.VALIDATE:
                return self.outcome is not CallOutcome.OK and _blocks(self.extension.on_fail)
            case Stage.PRE | Stage.POST:
                return self.outcome.failed and self.extension.required
            case _:
                assert_never(self.name.stage)

    @property
    def warns(self) -> bool:
        """Whether the answer carries a warning about this step."""
        if self.name.stage is Stage.VALIDATE:
            return self.outcome is not CallOutcome.OK and self.extension.on_fail is OnFail.WARN
        return False


def _blocks(on_fail: OnFail) -> bool:
    match on_fail:
        case OnFail.BLOCK:
            return True
        case OnFail.WARN | OnFail.IGNORE:
            return False
        case _:
            assert_never(on_fail)


_ERROR_CODES = {
    CallOutcome.REJECTED: Code.VALIDATOR_BLOCKED,
    CallOutcome.TIMEOUT: Code.EXTENSION_TIMEOUT,
    CallOutcome.UNAVAILABLE: Code.EXTENSION_UNAVAILABLE,
    CallOutcome.ERROR: Code.EXTENSION_ERROR,
}
_FAILURE_TEXTS = {
    CallOutcome.TIMEOUT: "did not answer in time",
    CallOutcome.UNAVAILABLE: "is not available",
    CallOutcome.ERROR: "returned an unusable reply",
}


def wanted(extensions: Sequence[Extension], request: DecideRequest) -> list[Extension]:
    """The extensions whose `when` matches the request, in the policy's order."""
    return [e for e in extensions if _matches(e.when, request)]


def wanted_of(policy: Policy, request: DecideRequest) -> list[tuple[Stage, Extension]]:
    """The extensions that the request calls, with their stages, in the pipeline's order."""
    stages = ((Stage.PRE, policy.pre), (Stage.VALIDATE, policy.validators), (Stage.POST, policy.post))
    return [(stage, e) for stage, extensions in stages for e in wanted(extensions, request)]


def _matches(when: JsonObject, request: DecideRequest) -> bool:
    if not when:
        return True
    types = cast(list[str], when.get("message_type") or [])
    if types and request.task_type not in types:
        return False
    context = cast(dict[str, list[str]], when.get("context") or {})
    return all(attribute(name, request) in values for name, values in context.items())


def worst_ms(policy: Policy, max_ms: int) -> int:
    """The longest duration of the pipeline: every call and every retry times out. At most `max_ms`."""
    total = sum(_max_duration_ms(e) for e in (*policy.pre, *policy.post))
    total += max((_max_duration_ms(e) for e in policy.validators), default=0)
    return min(max_ms, total)


def worst_latency_ms(policy: Policy) -> int:
    """The duration of the pipeline when every extension times out once and is not retried."""
    sequential_ms = sum(e.timeout_ms for e in (*policy.pre, *policy.post))
    return sequential_ms + max((e.timeout_ms for e in policy.validators), default=0)


def _max_duration_ms(e: Extension) -> int:
    return (1 + e.retry) * (e.timeout_ms + RETRY_PAUSE_MS)


def refusal(step: ExtensionStep) -> Refused:
    """Build the answer to a request that ends at this step."""
    details: JsonObject = {"extension_id": step.name.id, "stage": step.name.stage.value}
    if step.reason:
        details["reason"] = step.reason
    if step.outcome is CallOutcome.REJECTED:
        if step.reply is not None and step.reply.details:
            details["details"] = step.reply.details
        return Refused(Code.VALIDATOR_BLOCKED, f"validator {step.name.id} rejected the request", details)
    message = f"extension {step.name.id} ({step.name.stage}) {_FAILURE_TEXTS[step.outcome]}"
    details["calls"] = step.calls
    code = _ERROR_CODES[step.outcome]
    if step.name.stage is Stage.POST:
        details["cause"] = code.value
        return Refused(Code.POST_PROCESSOR_FAILED, f"{message}; nothing was dispatched", details)
    return Refused(code, message, details)


def warnings(steps: Sequence[ExtensionStep]) -> list[JsonValue]:
    """The warnings about validators with `on_fail: warn`, for `decision.metadata`."""
    return [_with_reason({"extension_id": s.name.id, "outcome": s.outcome.value}, s) for s in steps if s.warns]


def explained(steps: Sequence[ExtensionStep]) -> list[JsonValue]:
    """All steps, as the explanation lists them."""
    return [
        _with_reason(
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


def _with_reason(fields: JsonObject, step: ExtensionStep) -> JsonObject:
    return {**fields, "reason": step.reason} if step.reason else fields


def post_metadata(steps: Sequence[ExtensionStep]) -> JsonObject:
    """The fields that post extensions add to `decision.metadata`. If two add the same field, the later one wins."""
    merged: JsonObject = {}
    for s in steps:
        if s.reply is not None and s.name.stage is Stage.POST:
            merged |= s.reply.metadata
    return merged

"""Replies to usual requests that were admitted. The part about policy and provider is encoded once and used again."""

import orjson

from router.domain.decide.answers import FALLBACK_REASONS
from router.domain.decide.candidates import Candidate
from router.domain.decide.decision import Decision, Reason
from router.domain.decide.outcome import Admitted
from router.domain.decide.plan import Plan
from router.domain.decide.request import DecideRequest
from router.domain.ids import to_text
from router.domain.policy.model import StoredPolicy
from router.wire.reply import decision_object

_MAX_HEADS = 4_096

_Head = tuple[str, Reason, int, int, str, int]


class AdmittedReplies:
    """Encodes the reply to an admitted request that is not pushed, explained, or limited by the gate.

    The bytes are those of `reply.encode` for `answers.admitted`, for a request without warnings.
    """

    def __init__(self) -> None:
        self._heads: dict[_Head, bytes] = {}

    def encode(self, request: DecideRequest, plan: Plan, outcome: Admitted) -> bytes:
        """Encode the JSON reply; ids, names and sessions are short enough to stay far below the maximum of a reply."""
        chosen, stored, reason = plan.candidates[outcome.candidate], plan.stored, outcome.reason
        key = (
            chosen.provider.name,
            reason,
            chosen.expected_latency_ms,
            chosen.expected_cost_microusd,
            stored.policy_id,
            stored.revision,
        )
        head = self._heads.get(key)
        if head is None:
            head = self._add(key, chosen, stored)
        pin, trace_id = plan.pin, request.correlation.trace_id
        return b'%b%b"%b%b},"context":{"request_id":%b%b}}' % (
            head,
            to_text(outcome.decision_id).encode(),
            b"" if pin is None else b',"sticky_key":' + orjson.dumps(pin.key),
            b',"fallback_used":true' if reason in FALLBACK_REASONS else b"",
            orjson.dumps(request.request_id),
            b"" if trace_id is None else b',"trace_id":' + orjson.dumps(trace_id),
        )

    def _add(self, key: _Head, chosen: Candidate, stored: StoredPolicy) -> bytes:
        """The reply up to its decision_id."""
        decision = Decision(
            chosen.provider.name,
            key[1],
            chosen.expected_latency_ms,
            chosen.expected_cost_microusd,
            stored.policy_id,
            stored.revision,
            decision_id="",
        )
        if len(self._heads) >= _MAX_HEADS:
            # Learned figures change every few seconds, so most of them are out of use.
            self._heads.clear()
        body = orjson.dumps({"ok": True, "decision": decision_object(decision)})
        head = self._heads[key] = body.removesuffix(b'"}}')
        return head

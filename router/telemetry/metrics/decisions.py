"""Metrics of decisions: latency, refusals, pins, limits and breakers."""

from collections.abc import Iterable, Mapping
from itertools import product

from prometheus_client import Counter

from router.domain.decide.admission import Shed
from router.domain.decide.decision import PinState
from router.domain.policy.vocabulary import Resource, Scope
from router.domain.reply_refusal import ReplyRefusal
from router.telemetry.families import Families
from router.telemetry.metrics.bounds import LONG
from router.telemetry.tally import OTHER, Buckets, Decisions

BREAKER_STATES = ("open", "half_open", "forced")


class DecisionMetrics:
    """Counted by `usecases.decide` and `usecases.sampling`."""

    def _decisions(self, families: Families, tenants: Iterable[str]) -> None:
        latency = families.histogram(
            "decision_seconds", documentation="Time from the request's arrival to its answer.", bounds=LONG
        ).child()
        self.latency = latency
        self.extended_latency = Buckets(LONG)
        """The values of `latency` that belong to requests with extensions. It is not a family of its own."""
        self.decisions = Decisions(tenants, latency)
        families.own(
            self.decisions, name=Decisions.NAME, documentation=Decisions.DOCUMENTATION, labels=Decisions.LABELS
        )
        self.in_flight = families.gauge("in_flight", documentation="Requests in the pod without an answer yet.")
        self.shed = families.counter(
            "shed",
            documentation="Requests refused as overload before they were read. full: too many in flight; tenant, "
            "loading: their tenant, or those that wait for policies, have their share of a pod that is half full; "
            "stale: they waited while the pod stood still.",
            labels=("cause",),
        )
        for cause in Shed:
            self.shed.labels(cause.value)
        self.reply_subjects_refused = families.counter(
            "reply_subjects_refused",
            documentation="Requests dropped because the router does not publish to their reply subject, by reason.",
            labels=("reason",),
        )
        for reason in ReplyRefusal:
            self.reply_subjects_refused.labels(reason.value)
        pins = families.counter(
            "pins", documentation="Decisions with a pin, by the state of the pin.", labels=("state",)
        )
        self.pins: Mapping[PinState, Counter] = {
            state: pins.labels(state.name.lower()) for state in PinState if state is not PinState.NONE
        }
        self.shadow_hits = families.counter(
            "shadow_limit_hits", documentation="Decisions that a limit in shadow mode would have refused."
        )
        self.limit_refusals = families.counter(
            "limit_refusals",
            documentation="Requests that a limit refused, by its scope and resource.",
            labels=("scope", "resource"),
        )
        for scope, resource in product(Scope, Resource):
            self.limit_refusals.labels(scope.value, resource.value)
        self._limit_usage(families)

    def _limit_usage(self, families: Families) -> None:
        """Limits and breakers of the tenants in use, set by `usecases.sampling.limit_usage`."""
        self.limit_used = families.gauge(
            "limit_used_ratio",
            documentation="Usage share of the fullest limit, from the leading pod; 0 on the others. Without per-user "
            "limits.",
            labels=("scope", "resource", "tenant"),
        )
        self.limits_near = families.gauge(
            "limits_near",
            documentation="Limits that are at least 90 % full, from the leading pod; 0 on the others.",
            labels=("scope", "resource"),
        )
        self.breakers = families.gauge(
            "breakers",
            documentation="Provider breakers that are not closed, from the leading pod; 0 on the others. forced: held "
            "open by an operator; half_open: also those whose next request is a probe.",
            labels=("state",),
        )
        self.measured_tenants = families.gauge(
            "measured_tenants",
            documentation="Tenants whose limits and breakers are measured; 0 on pods that do not lead.",
        )
        for scope, resource in product(Scope, Resource):
            if scope is not Scope.USER:
                self.limit_used.labels(scope.value, resource.value, OTHER)
                self.limits_near.labels(scope.value, resource.value)
        for state in BREAKER_STATES:
            self.breakers.labels(state)

"""Parses a policy document into a compiled policy and a canonical document.

The canonical document has the same meaning, with old forms rewritten to the present form. It leaves defaults out, so
older pods can read every document that uses nothing new. Equal policies have equal canonical documents. Costs
(`expected_cost`, cost limits and their estimates) are US dollars in documents and integer micro-USD in compiled
policies.
"""

from enum import StrEnum
from hashlib import blake2b
from math import isclose

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.collections import ListOf
from router.domain.policy.extensions import POST, PRE, VALIDATORS, check_extensions
from router.domain.policy.fallbacks import FALLBACKS, warn_unreachable
from router.domain.policy.fields import BREAKER, MAX_PROVIDERS, NAME, PROVIDER, STICKY, WeightsMap
from router.domain.policy.kinds import Choice, Free, Report, plain, shown
from router.domain.policy.limits import LIMITS, RATE_LIMIT, RATE_LIMIT_ID, warn_pointless
from router.domain.policy.model import Fallback, Limit, Policy, Provider, provider
from router.domain.policy.tables import Field, Row, Table, at, written
from router.domain.policy.vocabulary import Resource, Selection
from router.errors import InvalidInput, Problem

HASH_BYTES = 8


class Version(StrEnum):
    """The language versions that this parser reads."""

    V1_0 = "1.0"
    V1 = "1"


VERSION = Field("version", Choice(Version), "The version of the policy language.", Version.V1_0)
PROVIDERS = Field(
    "providers",
    ListOf(PROVIDER, MAX_PROVIDERS, minimum=1, unique=(NAME.name, *(old for old, _ in NAME.old))),
    "The providers that can run tasks; at least one.",
    old=(("weights", WeightsMap()),),
)
SELECTION = Field(
    "selection", Choice(Selection), "Order candidates by weight, or by learned latency and cost.", Selection.WEIGHTED
)
STICKY_SECTION = Field("sticky", STICKY, "Keeps a session on its provider.", None)
BREAKER_SECTION = Field("circuit_breaker", BREAKER, "Stops sending requests to a failing provider for a time.", None)
METADATA: Field[JsonObject] = Field("metadata", Free(), "Your own data; kept as it is.", {})

DOCUMENT = Table(
    "a policy",
    (
        VERSION,
        PROVIDERS,
        SELECTION,
        STICKY_SECTION,
        FALLBACKS,
        BREAKER_SECTION,
        LIMITS,
        RATE_LIMIT,
        PRE,
        VALIDATORS,
        POST,
        METADATA,
    ),
)


class Parsed(Struct, frozen=True):
    """A valid document, compiled. `warnings` are for its author and have no effect."""

    policy: Policy
    canonical: JsonObject
    warnings: list[Problem]


def parse(document: JsonValue) -> Parsed:
    """Compile a decoded policy document.

    :raises InvalidInput: the document is invalid; lists every problem.
    """
    report = Report()
    row = DOCUMENT.read(document, "", report)
    if row is not None:
        _check(row, _old_forms(document), report)
    if row is None or report.problems:
        raise InvalidInput(report.problems)
    policy = _build(row)
    return Parsed(policy, canonical(policy), report.warnings)


def canonical(policy: Policy) -> JsonObject:
    """The document that parses to this policy."""
    return {"version": Version.V1_0.value} | written(
        PROVIDERS.entry(policy.providers),
        SELECTION.entry(policy.selection),
        ("sticky", STICKY.write(policy.sticky)) if policy.sticky else None,
        FALLBACKS.entry(policy.fallbacks),
        ("circuit_breaker", BREAKER.write(policy.breaker)) if policy.breaker else None,
        LIMITS.entry(policy.limits),
        PRE.entry(policy.pre),
        VALIDATORS.entry(policy.validators),
        POST.entry(policy.post),
        METADATA.entry(policy.metadata),
    )


def content_hash(canonical_bytes: bytes) -> bytes:
    """The 8-byte hash of a policy's content. `canonical_bytes` must have sorted keys (`wire.policies.encode`)."""
    return blake2b(canonical_bytes, digest_size=HASH_BYTES).digest()


class _OldForms(Struct, frozen=True):
    """Which old forms the author used, so that messages name the fields that are in the document."""

    weights: bool
    fallback: bool

    def weight_path(self, index: int, name: str) -> str:
        """The path of a provider's weight."""
        return at("weights", name) if self.weights else f"providers[{index}].weight"


def _old_forms(document: JsonValue) -> _OldForms:
    fields = document if isinstance(document, dict) else {}
    return _OldForms("providers" not in fields, "fallbacks" not in fields)


def _check(row: Row, old: _OldForms, report: Report) -> None:
    """Check the relations between sections, as far as the sections themselves are valid."""
    limits = row.get(LIMITS) or ()
    warn_pointless(limits, report)
    check_extensions([row.get(PRE), row.get(VALIDATORS), row.get(POST)], report)
    if row.get(RATE_LIMIT) is not None and any(x.id == RATE_LIMIT_ID for x in limits):
        message = f'is ignored: `limits` has a limit with the id "{RATE_LIMIT_ID}"'
        report.warn("rate_limit", message=message, hint="remove rate_limit")
    providers = row.get(PROVIDERS)
    if providers is not None:
        rules = row.get(FALLBACKS)
        _check_weights(providers=providers, selection=row.get(SELECTION), rules=rules, old=old, report=report)
        _check_estimates(limits, providers, report)
        warn_unreachable(rules or (), tuple(p.name for p in providers), report, old_form=old.fallback)


def _build(row: Row) -> Policy:
    providers = row[PROVIDERS]
    rules = row[FALLBACKS]
    by_name = {p.name: p for p in providers}
    targets = {r.to: by_name.get(r.to) or provider(r.to, 0) for r in rules}
    return Policy(
        providers=providers,
        selection=row[SELECTION],
        sticky=row[STICKY_SECTION],
        fallbacks=rules,
        fallback_providers=tuple(targets.values()),
        breaker=row[BREAKER_SECTION],
        limits=_with_rate_limit(row[LIMITS], row[RATE_LIMIT]),
        pre=row[PRE],
        validators=row[VALIDATORS],
        post=row[POST],
        metadata=row[METADATA],
    )


def _check_weights(
    providers: tuple[Provider, ...],
    selection: Selection | None,
    rules: tuple[Fallback, ...] | None,
    old: _OldForms,
    report: Report,
) -> None:
    """Check the weights. `rules` None: the rules are invalid, so it is unknown which providers they lead to."""
    section = "weights" if old.weights else "providers"
    total = sum(p.weight for p in providers)
    if total == 0 and rules == ():
        report.problem(
            section, message="all weights are 0: no provider could ever be chosen", hint="give one a weight above 0"
        )
        return
    targets = {r.to for r in rules or ()}
    for i, p in enumerate(providers):
        if p.weight == 0 and rules is not None and p.name not in targets:
            message = f"is 0 and no fallback leads to {shown(p.name)}: it is never chosen"
            report.warn(old.weight_path(i, p.name), message=message, hint="give it a weight, or name it in a fallback")
    if total == 0:
        report.warn(section, message="all weights are 0: only fallbacks are used")
    elif selection is Selection.WEIGHTED and not _sums_to_100(providers, total):
        report.warn(
            section,
            message=f"weights sum to {plain(round(total, ndigits=6))}, not 100",
            hint="shares are relative to the sum",
        )


def _sums_to_100(providers: tuple[Provider, ...], total: float) -> bool:
    """Whether the weights of all providers, or those of each priority, sum to 100. The shares are the same for both."""
    by_priority: dict[int, float] = {}
    for p in providers:
        if p.weight:
            by_priority[p.priority] = by_priority.get(p.priority, 0) + p.weight
    return any(all(isclose(s, 100, abs_tol=0.01) for s in sums) for sums in ((total,), by_priority.values()))


def _with_rate_limit(limits: tuple[Limit, ...], old: Limit | None) -> tuple[Limit, ...]:
    """Add the old `rate_limit` as one more limit, unless a limit has its id."""
    if old is None or any(x.id == RATE_LIMIT_ID for x in limits):
        return limits
    return (*limits, old)


def _check_estimates(limits: tuple[Limit, ...], providers: tuple[Provider, ...], report: Report) -> None:
    unpriced = [p.name for p in providers if not p.expected_cost_microusd]
    for i, x in enumerate(limits):
        if x.resource is Resource.COST and unpriced and not x.default_estimate:
            hint = f"set default_estimate here, or expected_cost of {', '.join(unpriced[:5])}"
            report.warn(
                f"limits[{i}]", message="reserves nothing for a request without an estimate of its cost", hint=hint
            )

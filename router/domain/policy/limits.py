"""The policy language: limits, and their old form `rate_limit`."""

from enum import StrEnum
from math import ceil
from typing import Final, assert_never

from router.domain.json import JsonObject
from router.domain.policy.collections import ListOf
from router.domain.policy.durations import Duration, duration_ms
from router.domain.policy.fields import ENABLED
from router.domain.policy.kinds import MICRO, Choice, Int, Number, Report, Text
from router.domain.policy.model import Limit, entry_id
from router.domain.policy.tables import Field, Nested, Row, Table, at, written
from router.domain.policy.vocabulary import Algorithm, OnStoreError, Resource, Scope, is_estimated

MAX_LIMITS: Final = 32
LARGEST: Final = 10**15
MAX_LOGGED: Final = 10_000
LONGEST_WINDOW: Final = "31d"
RATE_LIMIT_ID: Final = "rate_limit"
_COUNTED_BY: Final = ("scope", "resource", "window_ms", "algorithm", "default_estimate")


class Mode(StrEnum):
    """Whether a limit refuses requests, or only counts and reports them."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


LIMIT_ID = Text(pattern="[A-Za-z0-9_.:-]{1,128}", what="a limit id: 1 to 128 of A-Z a-z 0-9 _ . : -")
ID = Field("id", LIMIT_ID, "The limit's name in refusals and in the store; unique in the policy.")
SCOPE = Field("scope", Choice(Scope), "Who shares the counter.")
RESOURCE = Field("resource", Choice(Resource), "What the limit counts.")
LIMIT = Field(
    "limit",
    Number(minimum=0, maximum=LARGEST, positive=True),
    "The most units in any window: a whole number; for cost, USD with up to six decimals.",
)
WINDOW = Field(
    "window",
    Duration(minimum="1ms", maximum=LONGEST_WINDOW),
    "No window of this length admits more than `limit`. Required, except for concurrency.",
    0,
)
ALGORITHM = Field(
    "algorithm",
    Choice(Algorithm),
    "sliding: counts in 12 sub-buckets, and frees a unit up to an eleventh of the window late. log: stores every "
    "charge, at most 10,000 of them, and frees a unit on the millisecond; it costs more.",
    Algorithm.SLIDING,
)
MODE = Field("mode", Choice(Mode), "enforce: refuse. shadow: only count and report.", Mode.ENFORCE)
ON_STORE_ERROR = Field(
    "on_store_error",
    Choice(OnStoreError, {"local_share": 'use "deny" or "allow"'}),
    "Whether requests are refused or admitted while the store is unavailable.",
    OnStoreError.DENY,
)
ESTIMATE = Field(
    "default_estimate",
    Number(minimum=0, maximum=LARGEST),
    "Tokens, or USD of cost, that a request without an estimate reserves.",
    0.0,
)
_TABLE = Table("a limit", (ID, SCOPE, RESOURCE, LIMIT, WINDOW, ALGORITHM, MODE, ON_STORE_ERROR, ESTIMATE))


def limit(
    id_: str,
    scope: Scope,
    resource: Resource,
    maximum: int,
    window_ms: int,
    *,
    algorithm: Algorithm = Algorithm.SLIDING,
    shadow: bool = False,
    on_store_error: OnStoreError = OnStoreError.DENY,
    default_estimate: int = 0,
) -> Limit:
    """Build a limit with its derived entry.

    Id, window, scope and resource identify the counter. The policy's revision and the bound do not, so a change of them
    keeps the count.
    """
    entry = entry_id("limit", id_, str(window_ms), scope.value, resource.value)
    return Limit(
        id=id_,
        scope=scope,
        resource=resource,
        limit=maximum,
        window_ms=window_ms,
        entry=entry,
        algorithm=algorithm,
        shadow=shadow,
        on_store_error=on_store_error,
        default_estimate=default_estimate,
    )


_SHADOW = {Mode.ENFORCE: False, Mode.SHADOW: True}


def _check(row: Row, path: str, report: Report) -> None:
    resource = row.get(RESOURCE)
    if resource is None:
        return
    concurrent = resource is Resource.CONCURRENCY
    if concurrent and row.given(WINDOW):
        message = "does not apply to concurrency: a slot is free again when its task ends"
        report.warn(at(path, "window"), message=message, hint="remove window")
    if not concurrent and not row.given(WINDOW):
        report.problem(at(path, "window"), message="is required", hint='write a duration such as "60s"')
    if row.get(ALGORITHM) is Algorithm.LOG:
        _check_log(row, path, report)
    maximum = _check_units(row.get(LIMIT), resource, at(path, "limit"), report)
    estimate = _check_units(row.get(ESTIMATE), resource, at(path, "default_estimate"), report)
    if maximum == 0:
        report.problem(
            at(path, "limit"), message="is below 0.000001 USD", hint="give an amount of at least a millionth of a USD"
        )
    elif maximum is not None and estimate is not None and estimate > maximum:
        message = "is above `limit`: no request without its own estimate would ever be admitted"
        report.problem(at(path, "default_estimate"), message=message, hint="lower it, or raise `limit`")
    if not is_estimated(resource) and row.given(ESTIMATE):
        message = f"does not apply to {resource.value}: a request counts 1"
        report.problem(at(path, "default_estimate"), message=message, hint="remove default_estimate")
    if resource is Resource.TOKENS and estimate == 0:
        message = "reserves nothing for a request without an estimate of its tokens"
        report.warn(path, message=message, hint="set default_estimate")


def _check_log(row: Row, path: str, report: Report) -> None:
    resource, maximum = row.get(RESOURCE), row.get(LIMIT)
    if resource is Resource.CONCURRENCY:
        message = "does not apply to concurrency: leases are counted exactly"
        report.problem(at(path, "algorithm"), message=message, hint="remove algorithm")
    elif resource is Resource.REQUESTS and maximum is not None and maximum > MAX_LOGGED:
        message = f"is above {MAX_LOGGED}, the capacity of a log"
        report.problem(at(path, "limit"), message=message, hint='lower it, or set algorithm to "sliding"')


def _build(row: Row) -> Limit:
    resource = row[RESOURCE]
    return limit(
        id_=row[ID],
        scope=row[SCOPE],
        resource=resource,
        maximum=_units(row[LIMIT], resource),
        window_ms=0 if resource is Resource.CONCURRENCY else row[WINDOW],
        algorithm=row[ALGORITHM],
        shadow=_SHADOW[row[MODE]],
        on_store_error=row[ON_STORE_ERROR],
        default_estimate=_units(row[ESTIMATE], resource),
    )


def _units(value: float, resource: Resource) -> int:
    """Convert a document's value to whole units of a resource; for cost, from USD to micro-USD."""
    return round(value * _scale(resource))


def _scale(resource: Resource) -> int:
    """Units of the store per unit of the document."""
    match resource:
        case Resource.COST:
            return MICRO
        case Resource.REQUESTS | Resource.TOKENS | Resource.CONCURRENCY:
            return 1
        case _:
            assert_never(resource)


def _check_units(value: float | None, resource: Resource, path: str, report: Report) -> int | None:
    if value is None:
        return None
    if resource is not Resource.COST and value != int(value):
        report.problem(path, message=f"{value} is not a whole number of {resource.value}")
    elif _units(value, resource) > LARGEST:
        report.problem(path, message=f"is above {LARGEST // MICRO} USD")
    return _units(value, resource)


def _unbuild(x: Limit) -> JsonObject:
    scale = _scale(x.resource)
    return written(
        ID.entry(x.id),
        SCOPE.entry(x.scope),
        RESOURCE.entry(x.resource),
        LIMIT.entry(x.limit / scale),
        WINDOW.entry(x.window_ms),
        ALGORITHM.entry(x.algorithm),
        MODE.entry(Mode.SHADOW if x.shadow else Mode.ENFORCE),
        ON_STORE_ERROR.entry(x.on_store_error),
        ESTIMATE.entry(x.default_estimate / scale),
    )


LIMITS = Field(
    "limits",
    ListOf(Nested(_TABLE, _build, _unbuild, _check), MAX_LIMITS, unique=(ID.name,)),
    "A request must pass all limits; if one refuses, none is charged.",
    (),
)

RATE = Field(
    "requests_per_second",
    Number(minimum=0, maximum=1_000_000, positive=True),
    "The average number of requests per second.",
)
BURST = Field("burst", Int(minimum=1, maximum=1_000_000), "The most requests at once; absent: the rate, rounded up.", 0)


def _rate_window(rate: float, burst: int) -> tuple[int, int]:
    maximum = burst or ceil(rate)
    return maximum, ceil(maximum * 1000 / rate)


def _check_rate_limit(row: Row, path: str, report: Report) -> None:
    rate, burst = row.get(RATE), row.get(BURST)
    if rate and burst is not None and _rate_window(rate, burst)[1] > duration_ms(LONGEST_WINDOW):
        message = f"the window, burst / requests_per_second, is longer than {LONGEST_WINDOW}"
        report.problem(path, message=message, hint="lower burst, or raise requests_per_second")


def _build_rate_limit(row: Row) -> Limit | None:
    """Build the limit: at most `burst` (else the rate, rounded up) requests in any window of burst / rate.

    The section belongs to a policy and counts its requests, so the scope is the policy. Two policies of a tenant with
    such a section do not share a counter.
    """
    if not row[ENABLED]:
        return None
    maximum, window_ms = _rate_window(row[RATE], row[BURST])
    return limit(
        id_=RATE_LIMIT_ID, scope=Scope.POLICY, resource=Resource.REQUESTS, maximum=maximum, window_ms=window_ms
    )


RATE_LIMIT: Field[Limit | None] = Field(
    "rate_limit",
    Nested[Limit | None](
        Table("rate_limit", (ENABLED, RATE, BURST), switch=ENABLED.name),
        _build_rate_limit,
        # Not used by canonical documents, which have this limit in `limits`.
        lambda x: {} if x is None else written(RATE.entry(x.limit * 1000 / x.window_ms), BURST.entry(x.limit)),
        _check_rate_limit,
    ),
    "Old form of a limit on this policy's requests: `burst` in any window of burst / requests_per_second.",
    None,
)


def warn_pointless(limits: tuple[Limit, ...], report: Report) -> None:
    """Warn about limits that can never refuse, because another limit on the same counter is stricter."""
    for i, x in enumerate(limits):
        if (
            stricter := next(
                (j for j, y in enumerate(limits) if i != j and _is_stricter(y, other=x, first=j < i)), None
            )
        ) is not None:
            report.warn(
                f"limits[{i}]", message=f"can never refuse: limits[{stricter}] is at least as strict", hint="remove one"
            )


def _is_stricter(limit: Limit, *, other: Limit, first: bool) -> bool:
    """Whether `limit` refuses whenever `other` would. Of two equal limits, the first counts as stricter."""
    same_counter = all(getattr(limit, name) == getattr(other, name) for name in _COUNTED_BY)
    return same_counter and not limit.shadow and (limit.limit < other.limit or (limit.limit == other.limit and first))

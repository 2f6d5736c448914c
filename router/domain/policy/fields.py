"""The policy language: providers, selection, sticky sessions and breakers.

Fallbacks, limits and extensions have their own modules. Each table is the only definition of its fields: the parser,
the canonical form, the JSON Schema and the reference all come from it.
"""

from typing import Final

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.collections import MapOf, Maybe
from router.domain.policy.durations import Duration, Seconds
from router.domain.policy.kinds import Choice, Flag, Int, Number, Report, Text, Usd, plain
from router.domain.policy.model import Breaker, Provider, Sticky, provider
from router.domain.policy.tables import Field, Nested, Row, Table, written
from router.domain.policy.vocabulary import WhenAllOpen

MAX_PROVIDERS: Final = 128
LONGEST_MS: Final = 3_600_000
# A packed offer holds the name and its figures in 255 bytes; the largest figures take 11 of them (store/packing.py).
PROVIDER_NAME = Text(pattern="[A-Za-z0-9_.:/-]{1,230}", what="a provider name: 1 to 230 of A-Z a-z 0-9 _ . : / -")
WORD = Text(pattern=r"[^\x00-\x1f\x7f]{1,256}", what="1 to 256 characters without control characters")

NAME = Field("name", PROVIDER_NAME, "The provider's name, unique in the policy.", old=(("id", PROVIDER_NAME),))
WEIGHT = Field(
    "weight",
    Number(minimum=0, maximum=100),
    "The provider's share of the requests. Weights sum to 100, over all providers or within each priority. 0: the "
    "provider is only a fallback.",
)
PRIORITY = Field(
    "priority", Int(minimum=0, maximum=1000), "Higher priorities are tried first; weights count within a priority.", 0
)
LATENCY = Field("expected_latency_ms", Int(minimum=0, maximum=LONGEST_MS), "The expected duration of a task, in ms.", 0)
COST = Field("expected_cost", Usd(1_000_000), "The expected cost of a task, in USD.", 0)
MAX_CONCURRENCY = Field(
    "max_concurrency",
    Int(minimum=0, maximum=1_000_000),
    "The most tasks of this tenant at a time, fleet-wide; 0: no bound.",
    0,
)
ENDPOINT: Field[str | None] = Field(
    "endpoint",
    Maybe(Text(pattern=r"[^\x00-\x20\x7f]{1,1024}", what="an address: 1 to 1024 characters, no spaces")),
    "An address that assignments pass on to the worker.",
    None,
)


def _build_provider(row: Row) -> Provider:
    return provider(
        row[NAME],
        row[WEIGHT],
        priority=row[PRIORITY],
        expected_latency_ms=row[LATENCY],
        expected_cost_microusd=row[COST],
        max_concurrency=row[MAX_CONCURRENCY],
        endpoint=row[ENDPOINT],
    )


def _unbuild_provider(p: Provider) -> JsonObject:
    return written(
        NAME.entry(p.name),
        WEIGHT.entry(p.weight),
        PRIORITY.entry(p.priority),
        LATENCY.entry(p.expected_latency_ms),
        COST.entry(p.expected_cost_microusd),
        MAX_CONCURRENCY.entry(p.max_concurrency),
        ENDPOINT.entry(p.endpoint),
    )


PROVIDER = Nested(
    Table("a provider", (NAME, WEIGHT, PRIORITY, LATENCY, COST, MAX_CONCURRENCY, ENDPOINT)),
    _build_provider,
    _unbuild_provider,
)


class WeightsMap:
    """The old form of `providers`: {"name": weight}. Weights are 0..1 if none is above 1, else 0..100."""

    def read(self, value: JsonValue, path: str, report: Report) -> tuple[Provider, ...] | None:
        """Providers with these weights and default figures."""
        pairs = MapOf(PROVIDER_NAME, Number(minimum=0, maximum=100), MAX_PROVIDERS).read(value, path, report)
        if pairs is None:
            return None
        if not pairs:
            report.problem(path, message="names no provider", hint="at least one is required")
            return None
        scale = 100 if max(w for _, w in pairs) <= 1 else 1
        return tuple(provider(name, round(w * scale, ndigits=9)) for name, w in pairs)

    def write(self, value: tuple[Provider, ...]) -> JsonValue:
        """The map of these weights."""
        return {p.name: plain(p.weight) for p in value}

    def schema(self) -> JsonObject:
        """The schema of what `read` accepts."""
        return MapOf(PROVIDER_NAME, Number(minimum=0, maximum=100), MAX_PROVIDERS).schema()


ENABLED = Field("enabled", Flag(), "false: the section has no effect.", True)

SESSION_KEY = Field("session_key", WORD, "The field of the request's context that holds the session.", "session_id")
TTL = Field(
    "ttl",
    Duration(minimum="1s", maximum="30d"),
    "The lifetime of an unused pin. A use renews it, except within the first tenth of the lifetime.",
    600_000,
    old=(("ttl_seconds", Seconds(minimum=1, maximum=2_592_000)), ("ttl_sec", Seconds(minimum=1, maximum=2_592_000))),
)
STICKY = Nested[Sticky | None](
    Table("sticky", (ENABLED, SESSION_KEY, TTL)),
    lambda row: Sticky(row[SESSION_KEY], row[TTL]) if row[ENABLED] else None,
    lambda s: {} if s is None else written(SESSION_KEY.entry(s.session_key), TTL.entry(s.ttl_ms)),
)

_BREAKER = Breaker()
FAILURES = Field(
    "failure_threshold",
    Int(minimum=1, maximum=1000),
    "Consecutive failures that open the breaker.",
    _BREAKER.failure_threshold,
)
ERROR_RATE = Field(
    "error_rate_threshold",
    Number(minimum=0, maximum=1, positive=True),
    "The share of failures in the window that opens the breaker.",
    _BREAKER.error_rate_threshold,
)
ERROR_WINDOW = Field(
    "error_rate_window_seconds",
    Seconds(minimum=1, maximum=3600),
    "The window of the error rate, in seconds.",
    _BREAKER.error_rate_window_ms,
)
MINIMUM = Field(
    "minimum_requests",
    Int(minimum=1, maximum=1_000_000),
    "The number of requests in the window that the error rate needs to open the breaker.",
    _BREAKER.minimum_requests,
)
TIMEOUT = Field(
    "timeout_ms",
    Int(minimum=1, maximum=LONGEST_MS),
    "The time in ms from opening to the first probe. Without requests the breaker stays open, for at most a day more.",
    _BREAKER.timeout_ms,
)
SUCCESSES = Field(
    "success_threshold",
    Int(minimum=1, maximum=100),
    "Successful probes that close the breaker. The provider's share then returns gradually, over timeout_ms or 10 s, "
    "whichever is shorter.",
    _BREAKER.success_threshold,
)
PROBES = Field(
    "half_open_max_calls",
    Int(minimum=1, maximum=100),
    "The most probes at a time while half-open.",
    _BREAKER.half_open_max_calls,
)
WHEN_ALL_OPEN = Field(
    "when_all_open",
    Choice(WhenAllOpen),
    "If all breakers are open: fail refuses requests. The others use the provider whose next probe is due first: "
    "probe_one for one probe at a time, last_resort for every request.",
    _BREAKER.when_all_open,
)


def _unbuild_breaker(b: Breaker | None) -> JsonObject:
    if b is None:
        return {}
    return written(
        FAILURES.entry(b.failure_threshold),
        ERROR_RATE.entry(b.error_rate_threshold),
        ERROR_WINDOW.entry(b.error_rate_window_ms),
        MINIMUM.entry(b.minimum_requests),
        TIMEOUT.entry(b.timeout_ms),
        SUCCESSES.entry(b.success_threshold),
        PROBES.entry(b.half_open_max_calls),
        WHEN_ALL_OPEN.entry(b.when_all_open),
    )


def _build_breaker(row: Row) -> Breaker | None:
    if not row[ENABLED]:
        return None
    return Breaker(
        failure_threshold=row[FAILURES],
        error_rate_threshold=row[ERROR_RATE],
        error_rate_window_ms=row[ERROR_WINDOW],
        minimum_requests=row[MINIMUM],
        timeout_ms=row[TIMEOUT],
        success_threshold=row[SUCCESSES],
        half_open_max_calls=row[PROBES],
        when_all_open=row[WHEN_ALL_OPEN],
    )


BREAKER = Nested[Breaker | None](
    Table(
        "circuit_breaker",
        (ENABLED, FAILURES, ERROR_RATE, ERROR_WINDOW, MINIMUM, TIMEOUT, SUCCESSES, PROBES, WHEN_ALL_OPEN),
    ),
    _build_breaker,
    _unbuild_breaker,
)

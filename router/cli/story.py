"""Why a decision is as it is, in words: of an audit entry, or of a dry run's answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.cli.audit_rows import moment
from router.cli.output import print_facts, print_line, print_table

Why = Mapping[str, Any]

REASONS = {
    "weighted": "it is the first fit one in the weighted order of this request",
    "best_score": "it is the first fit one by latency and cost",
    "sticky": "the session is pinned to it",
    "retry": "the failed attempt may be tried there again",
    "fallback": "a fallback rule leads to it",
    "circuit_breaker_fallback": "a circuit breaker stood in the way of one before it",
}
VERDICTS = {
    "chosen": "chosen",
    "not_reached": "not looked at: decided before its turn",
    "breaker_open": "its circuit breaker is open",
    "probes_busy": "its circuit breaker is half open and its probes are out",
    "concurrency_full": "all its slots are taken",
    "provider_limit": "a limit of its own is used up",
    "drained": "drained by an operator",
    "forced_open": "its circuit breaker was opened by an operator",
    "slow_start": "its circuit breaker has just closed: it gets its traffic back bit by bit",
    "constraint": "breaks a constraint of the request",
}
PINS = {
    "none": "",
    "new": "the session had none: pinned to the chosen one",
    "held": "the session was pinned to the chosen one already",
    "left": "the session was pinned to {pinned_to}, which was not fit: pinned to the chosen one instead",
}
_REFUSALS = {
    "conflict": "its key came with another request within 24 hours",
    "limited": "limit {limit_id} was used up",
    "no_candidate": "no provider was fit",
    "tenant_off": "the tenant is switched off by an operator",
}
_IDEMPOTENCY = {
    "fresh": "this request had not been answered before",
    "replayed": "this very request was answered before, and this is that answer",
    "unknown": "the store was away: nobody looked",
}


def print_story(head: str, why: Why, at_us: int | None = None) -> None:
    """A sentence, the facts, then candidates and limits as tables. `at_us`: when waits began; None: now."""
    print_line(head)
    print_why(why, at_us)


def print_why(why: Why, at_us: int | None = None) -> None:
    """The facts, candidates and limits of a story."""
    print_facts(_facts(why))
    if why.get("candidates"):
        _table("candidate", [_candidate(i, c, at_us) for i, c in enumerate(why["candidates"], 1)])
    if why.get("limits"):
        _table("limit", [_limit(x) for x in why["limits"]])


def reason_of(reason: str) -> str:
    """Why this provider."""
    return REASONS.get(reason, reason)


def refusal_of(why: Why) -> str:
    """Why none."""
    wait = why.get("retry_after_ms")
    text = _REFUSALS.get(why["refusal"], str(why["refusal"])).format(limit_id=why.get("limit_id"))
    return text if wait is None else f"{text}; it made sense to ask again after {seconds(wait)}"


def seconds(ms: float) -> str:
    """A duration for people."""
    return f"{ms / 1000:.1f} s"


def _facts(why: Why) -> list[tuple[str, Any]]:
    version = why.get("figures_version")
    pin = PINS.get(str(why.get("pin")), "").format(pinned_to=why.get("pinned_to") or "another one")
    policy = None
    if why.get("policy_id") is not None:
        policy = f"{why['policy_id']}, revision {why['policy_revision']}"
        policy += f" (hash {why['policy_hash']})" if why.get("policy_hash") else ""
    return [
        ("decision", why.get("decision_id")),
        ("policy", policy),
        ("figures", f"live, as of {moment(version * 1000)}" if version else "the policy's own: no results lately"),
        ("pin", pin or None),
        ("idempotency", _IDEMPOTENCY.get(why.get("idempotency", ""))),
        ("degraded", "yes: the store was away, and no limit was looked at" if why.get("degraded") else None),
        ("extensions", ", ".join(map(_extension, why.get("extensions", ()))) or None),
        ("not allowed", ", ".join(why["requires_cp"]) + ": needs CP2-LC" if why.get("requires_cp") else None),
    ]


def _candidate(place: int, c: Why, at_us: int | None) -> dict[str, object]:
    fit = c.get("fit_in_ms")
    when = None
    if fit is not None:
        when = f"in {seconds(fit)}" if at_us is None else moment(at_us + fit * 1000)
    latency, cost = c.get("expected_latency_ms"), c.get("expected_cost")
    verdict = VERDICTS.get(c["verdict"], c["verdict"])
    if own := c.get("limits"):
        left = ", ".join(f"{x['limit_id']} had {x['left_before']} left" for x in own)
        verdict = f"{verdict} ({left})"
    return {
        "#": place,
        "candidate": c["provider_id"],
        "verdict": verdict,
        "fit again": when,
        "expected": None if latency is None else f"{latency} ms, {cost} USD",
    }


def _limit(x: Why) -> dict[str, object]:
    window = x.get("window_ms")
    resource = "cost, in micro-USD," if x.get("resource") == "cost" else x.get("resource")
    of = None if resource is None else f"{resource} of the {x['scope']}"
    return {
        "limit": x["limit_id"],
        "counts": of,
        "mode": x.get("mode"),
        "left before": x.get("left_before"),
        "asked for": x.get("units"),
        "of": x.get("limit"),
        "window": seconds(window) if window else None,
        "refuses": "yes" if x.get("would_refuse") else None,
    }


def _table(whole: str, rows: Sequence[dict[str, object]]) -> None:
    """Only the columns in which something stands."""
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    print_table(columns, [[row[name] for name in columns] for row in rows], whole=(whole,))


def _extension(told: dict[str, Any]) -> str:
    """A dry run knows how it does (`status`), an answer what came of it (`outcome`); what is well needs no word."""
    odd = told.get("outcome") or told.get("status")
    return f"{told['extension_id']} ({odd})" if odd not in (None, "ok", "healthy") else str(told["extension_id"])

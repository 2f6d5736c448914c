"""An explanation of a decision in words, from an audit entry or a dry run."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.cli.shared.audit_rows import moment
from router.cli.shared.output import print_facts, print_line, print_table

Why = Mapping[str, Any]

REASONS = {
    "weighted": "it is the first fit candidate in the weighted order of this request",
    "best_score": "it is the first fit candidate by latency and cost",
    "sticky": "the session is pinned to it",
    "retry": "the failed attempt may be tried there again",
    "fallback": "a fallback rule leads to it",
    "circuit_breaker_fallback": "the circuit breaker of an earlier candidate was open",
}
VERDICTS = {
    "chosen": "chosen",
    "not_reached": "not reached: an earlier candidate was chosen",
    "breaker_open": "its circuit breaker is open",
    "probes_busy": "its circuit breaker is half open and all its probes are in use",
    "concurrency_full": "all its slots are taken",
    "provider_limit": "a limit of its own is used up",
    "drained": "drained by an operator",
    "forced_open": "its circuit breaker was opened by an operator",
    "slow_start": "its circuit breaker has just closed: its traffic comes back gradually",
    "constraint": "breaks a constraint of the request",
}
PINS = {
    "none": "",
    "new": "the session had none; it is now pinned to the chosen provider",
    "held": "the session was already pinned to the chosen provider",
    "left": "the session was pinned to {pinned_to}, which {cause}; it is now pinned to the chosen provider",
}
_REFUSALS = {
    "conflict": "another request had the same id within 24 hours",
    "limited": "limit {limit_id} was used up",
    "no_candidate": "no provider was fit",
    "tenant_off": "the tenant is switched off by an operator",
}
_IDEMPOTENCY = {
    "fresh": "the request is new",
    "replayed": "this request was answered before; this is the same answer",
    "unknown": "not checked: the store was unavailable",
}


def print_story(head: str, why: Why, at_us: int | None = None) -> None:
    """Print a sentence, the facts, then candidates and limits as tables. `at_us`: when waits began; None: now."""
    print_line(head)
    print_why(why, at_us)


def print_why(why: Why, at_us: int | None = None) -> None:
    """Print the facts, candidates and limits of an explanation."""
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
    return text if wait is None else f"{text}; a retry made sense after {seconds(wait)}"


def seconds(ms: float) -> str:
    """A duration for people."""
    return f"{ms / 1000:.1f} s"


def _facts(why: Why) -> list[tuple[str, Any]]:
    version = why.get("figures_version")
    cause = "the caller reported as failed" if why.get("pin_cause") == "failed" else "was not fit"
    pin = PINS.get(str(why.get("pin")), "").format(pinned_to=why.get("pinned_to") or "another one", cause=cause)
    policy = None
    if why.get("policy_id") is not None:
        policy = f"{why['policy_id']}, revision {why['policy_revision']}"
        policy += f" (hash {why['policy_hash']})" if why.get("policy_hash") else ""
    return [
        ("decision", why.get("decision_id")),
        ("policy", policy),
        ("figures", f"learned, as of {moment(version * 1000)}" if version else "the policy's own: no recent results"),
        ("pin", pin or None),
        ("idempotency", _IDEMPOTENCY.get(why.get("idempotency", ""))),
        ("degraded", "yes: the store was unavailable, and no limit was checked" if why.get("degraded") else None),
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
    """Print the rows, without empty columns."""
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    print_table(columns, [[row[name] for name in columns] for row in rows], whole=(whole,))


def _extension(extension: dict[str, Any]) -> str:
    """The extension with its `status` (in a dry run) or `outcome` (in an answer), unless that is good."""
    odd = extension.get("outcome") or extension.get("status")
    return (
        f"{extension['extension_id']} ({odd})" if odd not in (None, "ok", "healthy") else str(extension["extension_id"])
    )

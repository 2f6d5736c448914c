"""The policy language: the providers to try after a failure."""

from typing import Final

from msgspec import Struct

from router.domain.json import JsonObject, JsonValue
from router.domain.policy.collections import ListOf, MapOf, Maybe
from router.domain.policy.fields import PROVIDER_NAME, WORD
from router.domain.policy.kinds import Choice, Flag, Int, Report, shown
from router.domain.policy.model import Backoff, Fallback
from router.domain.policy.tables import Field, Nested, Row, Table, at, written
from router.domain.policy.vocabulary import Strategy

MAX_FALLBACKS: Final = 64
MAX_RETRY: Final = 10
MAX_WORDS: Final = 64
STATUSES: Final = (
    "success",
    "error",
    "timeout",
    "cancelled",
    "rate_limited",
    "circuit_breaker_open",
    "all_providers_failed",
    "context_length_exceeded",
    "content_filter",
)
_TASK_TYPE_NAMES = {"message_type", "task_type"}


class StatusKind:
    """A status word, an HTTP number (503 or "503") or a class of numbers ("5xx").

    It compiles to lower case without "HTTP_", as `status_matches` compares it.
    """

    def read(self, value: JsonValue, path: str, report: Report) -> str | None:
        """The status in its canonical spelling."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            report.wrong_type(path, expected="a status", value=value)
            return None
        status = str(value).lower().removeprefix("http_")
        is_number = len(status) == 3 and status[0] in "12345" and (status[1:].isdecimal() or status[1:] == "xx")
        if status in STATUSES or (is_number and status.isascii()):
            return status
        hint = f"use {', '.join(STATUSES)}, a number such as 503, or a class such as 5xx"
        report.problem(path, message=f"{shown(str(value))} is not a status", hint=hint)
        return None

    def write(self, value: str) -> JsonValue:
        """The status as text; numbers are written as strings."""
        return value

    def schema(self) -> JsonObject:
        """The schema of what `read` accepts, in the usual spellings."""
        return {
            "anyOf": [
                {"enum": list(STATUSES)},
                {"type": "string", "pattern": "^([Hh][Tt][Tt][Pp]_)?[1-5]([0-9]{2}|[Xx]{2})$"},
                {"type": "integer", "minimum": 100, "maximum": 599},
            ]
        }


_BACKOFF = Backoff()
STRATEGY = Field(
    "strategy",
    Choice(Strategy),
    "How the delay grows: base · 2ⁿ (exponential), base · n (linear), or base (fixed).",
    _BACKOFF.strategy,
)
BASE = Field("base_ms", Int(minimum=1, maximum=600_000), "The first delay, in ms.", _BACKOFF.base_ms)
MAXIMUM = Field("max_ms", Int(minimum=1, maximum=600_000), "The longest delay, in ms.", _BACKOFF.max_ms)
JITTER = Field("jitter", Flag(), "Spread the delays: each is between half of it and all of it.", _BACKOFF.jitter)


def _check_backoff(row: Row, path: str, report: Report) -> None:
    base, maximum = row.get(BASE), row.get(MAXIMUM)
    if base is not None and maximum is not None and base > maximum:
        report.problem(
            at(path, "base_ms"), message=f"{base} is above max_ms, {maximum}", hint="lower base_ms or raise max_ms"
        )


def _build_backoff(row: Row) -> Backoff:
    return Backoff(row[STRATEGY], row[BASE], row[MAXIMUM], row[JITTER])


def _unbuild_backoff(b: Backoff) -> JsonObject:
    return written(STRATEGY.entry(b.strategy), BASE.entry(b.base_ms), MAXIMUM.entry(b.max_ms), JITTER.entry(b.jitter))


WORDS = ListOf(WORD, MAX_WORDS, minimum=1, single=True)
STATUS = Field(
    "status",
    ListOf(StatusKind(), MAX_WORDS, minimum=1, single=True),
    "The statuses that match; absent: any failure.",
    (),
)
MESSAGE_TYPE = Field("message_type", WORDS, "The task types that match; absent: all.", ())
CONTEXT = Field(
    "context",
    MapOf(WORD, WORDS, MAX_WORDS),
    "Fields of the request's context (or metadata), each with the values that match. All fields must match.",
    (),
)
WHEN_TABLE = Table("when", (STATUS, MESSAGE_TYPE, CONTEXT))


class Match(Struct, frozen=True):
    """The `when` of a rule."""

    statuses: tuple[str, ...] = ()
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()


def _check_when(row: Row, path: str, report: Report) -> None:
    for name, _ in row.get(CONTEXT) or ():
        if name in _TASK_TYPE_NAMES:
            report.problem(
                at(at(path, "context"), name), message="is not a field of the context", hint="use `when.message_type`"
            )


def _build_when(row: Row) -> Match:
    types = (("message_type", row[MESSAGE_TYPE]),) if row.given(MESSAGE_TYPE) else ()
    return Match(row[STATUS], types + row[CONTEXT])


def _unbuild_when(m: Match) -> JsonObject:
    types = dict(m.attributes).get("message_type", ())
    context = tuple(a for a in m.attributes if a[0] != "message_type")
    return written(STATUS.entry(m.statuses), MESSAGE_TYPE.entry(types), CONTEXT.entry(context))


WHEN = Field(
    "when",
    Nested(WHEN_TABLE, _build_when, _unbuild_when, _check_when),
    "The failures that the rule applies to; absent: any.",
    Match(),
)
RETRY = Field(
    "retry",
    Int(minimum=0, maximum=MAX_RETRY),
    "Tries on the failed provider, the first one included, before `to` is used; a task has 1 + retry attempts. 0: a "
    "dispatched task ends with this failure, and only callers who report it in their context get `to`.",
    1,
)
BACKOFF: Field[Backoff | None] = Field(
    "backoff",
    Maybe(
        Nested(Table("backoff", (STRATEGY, BASE, MAXIMUM, JITTER)), _build_backoff, _unbuild_backoff, _check_backoff)
    ),
    "The delays before further attempts; absent: 200 ms.",
    None,
)
TO = Field("to", PROVIDER_NAME, "The provider to use next; it need not be in `providers`.")


def _build_fallback(row: Row) -> Fallback:
    when = row[WHEN]
    return Fallback(
        to=row[TO], statuses=when.statuses, attributes=when.attributes, retry=row[RETRY], backoff=row[BACKOFF]
    )


def _unbuild_fallback(f: Fallback) -> JsonObject:
    when = Match(f.statuses, f.attributes)
    return written(WHEN.entry(when), RETRY.entry(f.retry), BACKOFF.entry(f.backoff), TO.entry(f.to))


FALLBACK = Nested(Table("a fallback", (WHEN, RETRY, BACKOFF, TO)), _build_fallback, _unbuild_fallback)

PROVIDER = Field("provider", PROVIDER_NAME, "The provider to use next.")
CONDITIONS = Field(
    "conditions", ListOf(StatusKind(), MAX_WORDS, single=True), "The statuses that match; empty: any failure.", ()
)


class OldFallback:
    """The old form of `fallbacks`: a provider's name, or {"provider": name, "conditions": [statuses]}."""

    _table = Table("fallback", (PROVIDER, CONDITIONS))

    def read(self, value: JsonValue, path: str, report: Report) -> tuple[Fallback, ...] | None:
        """One rule with the default number of retries."""
        if isinstance(value, str):
            name = PROVIDER_NAME.read(value, path, report)
            return None if name is None else (Fallback(name),)
        if not isinstance(value, dict):
            report.wrong_type(path, expected="a provider name or an object", value=value)
            return None
        row = self._table.read(value, path, report)
        return (Fallback(row[PROVIDER], row[CONDITIONS]),) if row is not None and row.complete else None

    def write(self, value: tuple[Fallback, ...]) -> JsonValue:
        """The object that reads as the first of these rules."""
        return written(PROVIDER.entry(value[0].to), CONDITIONS.entry(value[0].statuses))

    def schema(self) -> JsonObject:
        """The schema of what `read` accepts."""
        return {"anyOf": [PROVIDER_NAME.schema(), self._table.schema()]}


FALLBACKS = Field(
    "fallbacks",
    ListOf(FALLBACK, MAX_FALLBACKS),
    "Rules for the provider to use after a failure; the first rule that matches counts.",
    (),
    old=(("fallback", OldFallback()),),
)


def warn_unreachable(
    rules: tuple[Fallback, ...], providers: tuple[str, ...], report: Report, *, old_form: bool = False
) -> None:
    """Warn about rules that no request or dispatched task can use, and about targets that are not in `providers`.

    `old_form`: the author used the old field `fallback`.
    """
    for i, rule in enumerate(rules):
        path = "fallback" if old_form else f"fallbacks[{i}]"
        if rule.to not in providers:
            report.warn(
                path if old_form else f"{path}.to",
                message=f"{shown(rule.to)} is not in providers",
                hint="it has default figures and no concurrency bound",
            )
        if rule.statuses == ("success",):
            report.warn(path, message="is never used: a success needs no fallback", hint="remove the rule")
        elif covering := _covering(rules[:i], rule):
            names, verb = ", ".join(f"fallbacks[{j}]" for j in covering), "matches" if len(covering) == 1 else "match"
            report.warn(path, message=f"is never used: {names} {verb} first", hint="put the narrower rule first")
        elif providers == (rule.to,):
            report.warn(
                path, message="is never used: it leads to the only provider", hint="add a provider, or remove the rule"
            )
        elif rule.retry == 0:
            message = (
                "0 ends a dispatched task at a failure that matches, unless the request sets "
                f"options.retry.max_attempts; only callers who report it in context.status get {shown(rule.to)}"
            )
            report.warn(f"{path}.retry", message=message, hint="with 1, the default, a task continues on `to` once")


def _covering(earlier: tuple[Fallback, ...], later: Fallback) -> list[int]:
    """Indexes of the earlier rules that together match everything that `later` matches; empty: there are none."""
    later_attributes = dict(later.attributes)
    broader = [
        i
        for i, rule in enumerate(earlier)
        if all(
            name in later_attributes and set(later_attributes[name]) <= set(values) for name, values in rule.attributes
        )
    ]
    failures = [s for s in later.statuses if s != "success"] or [""]
    first_matches = [next((i for i in broader if status_matches(earlier[i].statuses, s)), None) for s in failures]
    return [] if None in first_matches else sorted({i for i in first_matches if i is not None})


def status_matches(statuses: tuple[str, ...], status: str) -> bool:
    """Whether a rule's `when.status` covers a status. `5xx` covers 500 to 599; an empty list covers all."""
    if not statuses:
        return True
    status = status.lower().removeprefix("http_")
    if status in statuses:
        return True
    return len(status) == 3 and status.isdigit() and f"{status[0]}xx" in statuses

"""Every packer of what is stored or sent to a script: random values, packed and read back as they were."""

import random
from collections.abc import Callable
from typing import Any

import orjson
from msgspec import structs

from router.bus.client import headers as nats_headers
from router.domain.decide.candidates import Candidate, Offer
from router.domain.decide.decision import Reason
from router.domain.decide.outcome import RequestFacts, Reservation
from router.domain.decide.request import Correlation, DecideRequest, Options
from router.domain.policy.model import provider
from router.domain.tasks.task import Final, TaskFacts, TaskState
from router.store import packing
from router.store.scripts.layouts import LAYOUTS
from router.store.tasks import records
from router.wire.worker.job import encode_job, origin_of, request_of
from tests.fuzz.draws import maybe, name, number, text
from tests.fuzz.row_packers import decide_row, settle_row
from tests.store import layout_reader


def _reservations(r: random.Random) -> tuple[Reservation, ...]:
    return tuple(
        Reservation("tenant", text(r), "tokens", r.randbytes(8), number(r, 2**32 - 1), number(r), r.random() < 0.5)
        for _ in range(int(r.random() * 3))
    )


def _offered(r: random.Random) -> Candidate:
    return Candidate(provider(name(r)), Reason.WEIGHTED, number(r), number(r))


def varint(r: random.Random) -> tuple[object, object]:
    """A number, with something behind it."""
    n = number(r)
    raw = packing.varint(n)
    return (n, len(raw)), packing._read_varint(raw + r.randbytes(3), 0)


def offer(r: random.Random) -> tuple[object, object]:
    """What an answer says of its candidate."""
    c = _offered(r)
    raw = packing.offer(c)
    name = c.provider.name
    return (Offer(name, c.expected_latency_ms, c.expected_cost_microusd), len(raw)), packing.offer_in(raw + b"x", 0)


def remembered(r: random.Random) -> tuple[object, object]:
    """A remembered answer with every part that it may have."""
    c, policy_id, revision, sticky = _offered(r), name(r), number(r, 2**32 - 1), text(r, 90)
    facts = RequestFacts(text(r), text(r), maybe(r), None, maybe(r)) if r.random() < 0.3 else None
    extras = packing.Extras((text(r),), _reservations(r), r.random() < 0.5, facts) if r.random() < 0.7 else None
    reserved, charged, reason = r.random() < 0.5, number(r), r.choice(list(Reason))
    flags = packing.OutcomeFlag.OWNED | (packing.OutcomeFlag.RESERVED if reserved else 0)
    raw = b"".join(
        (
            b"\x01" + r.randbytes(8) + b"rand" + bytes([reason.value, flags]),
            packing.offer(c),
            packing.tail_head(policy_id, revision),
            packing.sized(sticky.encode()),
            packing.tail_extras(extras),
            packing._DOUBLE.pack(charged) if reserved else b"",
        )
    )
    a = packing.remembered(raw, 3, b"n" * 10)
    expected = extras or packing.Extras()
    given = (c.provider.name, reason, policy_id, revision, sticky or None, expected.reserved, expected.facts)
    return given, (a.provider_id, a.reason, a.policy_id, a.policy_revision, a.sticky_key, a.reserved, a.facts)


def task_record(r: random.Random) -> tuple[object, object]:
    """A delivery record, as decide.lua puts it together."""
    c, reason, state = _offered(r), r.choice(list(Reason)), r.choice(list(TaskState))
    facts = TaskFacts(
        name(r), name(r), number(r, 2**32 - 1), text(r), text(r), maybe(r), 3, number(r), maybe(r), maybe(r),
        maybe(r), None, maybe(r), None, maybe(r), _reservations(r), number(r), r.random() < 0.5, r.random() < 0.5,
        maybe(r),
    )  # fmt: skip
    attempt, why, charged, deadline = 1 + int(r.random() * 255), number(r, 65_535), number(r), number(r)
    decision, entry, packed = r.randbytes(16), r.randbytes(8), packing.offer(c)
    head = records._TASK.pack(1, state, attempt, why, charged, deadline, decision, entry, reason.value, len(packed))
    found = records.task_record(head + packed + records.task_facts(facts))
    given = (state, attempt, charged, deadline, decision, entry, c.provider.name, reason)
    figures = (c.expected_latency_ms, c.expected_cost_microusd, facts, why)
    return (*given, *figures), structs.astuple(found)


def final(r: random.Random) -> tuple[object, object]:
    """A final result that waits to be published."""
    given = Final(text(r), r.randbytes(int(r.random() * 64)))
    return given, records.final_in(records.final(given))


def kept_final(r: random.Random) -> tuple[object, object]:
    """A final result that is kept for repeats."""
    body = r.randbytes(int(r.random() * 64))
    return body, records.kept_final_in(records.kept_final(body))


def job(r: random.Random) -> tuple[object, object]:
    """The work item of a task."""
    correlation = Correlation(trace_id=maybe(r), run_id=maybe(r), flow_id=maybe(r), step_id=maybe(r))
    asked = DecideRequest(
        name(r), text(r), name(r), text(r), b"f" * 8, payload={"a": [text(r), number(r)]},
        context={"session_id": text(r)}, user_id=maybe(r), message_id=maybe(r), idempotency_key=maybe(r),
        options=Options(deadline_ms=number(r, 1_800_000)), correlation=correlation, push_assignment=True,
    )  # fmt: skip
    raw = encode_job(asked, 5_000)
    assert isinstance(raw, bytes)
    found, origin = request_of(raw), origin_of(raw)
    body = orjson.loads(raw[1:].partition(b"\n")[2])
    fields = ("tenant_id", "request_id", "policy_id", "task_type", "user_id", "message_id", "idempotency_key")
    given: list[Any] = [getattr(asked, f) for f in fields]
    return (
        [*given, asked.correlation, asked.tenant_id, asked.payload],
        [*(getattr(found, f) for f in fields), found.correlation, origin.tenant_id, {"a": body["job"]["payload"]["a"]}],
    )


def headers(r: random.Random) -> tuple[object, object]:
    """A NATS header block. Line breaks become spaces, and white space at the ends of a value is lost."""
    given = {f"{name(r)[:40]}{n}": text(r) + r.choice(("", "\n", "\r\nx: y")) for n in range(int(r.random() * 4))}
    plain = {name: value.replace("\r", " ").replace("\n", " ").strip() for name, value in given.items()}
    return plain, nats_headers.decode(nats_headers.encode(given))


def layouts(r: random.Random) -> tuple[object, object]:
    """The fixed fields of any layout, packed by position and read by name."""
    layout = r.choice(_FIXED)
    given = {name: _value(r, width) for name, width in layout.widths.items()}
    return (given, layout.size), layout_reader.fields(layout, layout.head.pack(*given.values()))


def _value(r: random.Random, width: str) -> Any:
    if width.startswith("c"):
        return r.randbytes(int(width[1:]))
    return float(number(r)) if width == "d" else number(r, {"B": 255, "H": 65_535, "I4": 2**32 - 1}[width])


_FIXED = [x for x in LAYOUTS.values() if not any(w.endswith("c0") for w in x.widths.values())]
PACKERS: dict[str, Callable[[random.Random], tuple[object, object]]] = {
    f"pack_{trip.__name__}": trip
    for trip in (
        *(varint, offer, remembered, task_record, final, kept_final, job),
        *(decide_row, settle_row, headers, layouts),
    )
}

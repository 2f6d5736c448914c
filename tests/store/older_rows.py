"""Rows of this version → the rows that pods of earlier versions send; never to be changed, but for the reading side.

`tests/store/before_layouts` has the scripts of the last version before the table of layouts: its flags were one byte,
its claims stood in the fields of pushed rows, its settle rows always carried a breaker. `tests/store/first` has those
of the first version: its decide rows are the same, its settle rows have no live figures and no final result.
"""

from struct import Struct as Binary
from struct import pack

from router.domain.policy.model import Breaker
from router.domain.tasks.result import BreakerVerdict
from router.store.scripts import layouts
from tests.store import layout_reader
from tests.store.layout_reader import Fields

_ROW = Binary(">IdBHHHHHHHH8s16sBBIIIH")
_CHARGE = Binary(">H8sIddB")
_CANDIDATE = Binary(">8sBIHBB")
_SETTLE_ROW = Binary(">IBHHHHHHH16sBBBBHIdB8sIdIIIIddBH")
_FIRST_SETTLE_ROW = Binary(">IBHHHHHH16sBBBBHIdB8sIdIIIIBH")
_CORRECTION = Binary(">H8sIdd")
# Bits of rows and charges.
_PUSH, _FLAGS = 1, {
    layouts.ROW_RESERVED: 2,
    layouts.ROW_RENEW: 4,
    layouts.ROW_METER: 8,
    layouts.ROW_PREVIEW: 16,
    layouts.ROW_CLAIM: 32,
    layouts.ROW_EXPLAIN: 64,
    layouts.ROW_MESSAGE: 128,
}  # fmt: skip
_KINDS = {layouts.KIND_SLIDING: 0, layouts.KIND_CONCURRENCY: 2, layouts.KIND_LOG: 4}
_SHADOW, _RECORDS = 1, 8
# What a settle row says of a breaker that its policy has not.
_DEFAULT = Breaker()
_NO_BREAKER: Fields = {
    "failures_max": _DEFAULT.failure_threshold,
    "rate_max": _DEFAULT.error_rate_threshold,
    "window_ms": _DEFAULT.error_rate_window_ms,
    "minimum": _DEFAULT.minimum_requests,
    "timeout_ms": _DEFAULT.timeout_ms,
    "successes_needed": _DEFAULT.success_threshold,
}
_NO_FIGURES: Fields = {"k_figures": 0, "latency_ms": -1, "cost_microusd": -1}


def decide_row(raw: bytes) -> bytes:
    """A decide row of both earlier versions."""
    row = layout_reader.decide_row(raw)
    flags = (_PUSH if row["k_task"] else 0) | sum(old for new, old in _FLAGS.items() if row["flags"] & new)
    packed: bytes = _ROW.pack(
        row["nonce"],
        row["not_after"],
        flags,
        *(row[k] for k in ("k_idem", "k_head", "k_state", "k_audit", "k_pin")),
        row.get("k_claim", row["k_task"]),
        row["k_due"],
        row["k_job"],
        *(row[k] for k in ("fingerprint", "decision", "all_open", "probes_max", "lease_ms", "pin_ms")),
        row.get("claim_ms", row["job_ms"]),
        len(row["features"]),
    )
    packed += row["features"]
    for text in (row["tail"], row["facts"]):
        packed += pack(">H", len(text)) + text
    packed += pack(">BBB", row["attempt"], row["n_charges"], row["n_candidates"])
    if "k_message" in row:
        packed += pack(">H", row["k_message"])
    packed += b"".join(map(_charge, row["charges"]))
    for c in row["candidates"]:
        head = c["entry"], c["reason"], c["bound"], c["k_lease"], c["n_charges"], len(c["offer"])
        packed += _CANDIDATE.pack(*head) + c["offer"] + b"".join(map(_charge, c["charges"]))
    return packed


def _charge(c: Fields) -> bytes:
    shadow = c["options"] & layouts.CHARGE_SHADOW
    records = c["options"] & layouts.CHARGE_RECORDS
    flags = _KINDS[c["kind"]] + (_SHADOW if shadow else _RECORDS if records else 0)
    return _CHARGE.pack(c["k"], c["id"], c["window_ms"], c["limit"], c["units"], flags)


def settle_row(raw: bytes) -> bytes:
    """A settle row of the version before layouts."""
    row = _NO_BREAKER | _NO_FIGURES | layout_reader.settle_row(raw)
    head = (
        "nonce kind k_subject k_job k_due k_outbox k_state k_audit k_figures decision attempt before_state state code "
        "why keep_ms due_at verdict entry failures_max rate_max window_ms minimum timeout_ms successes_needed "
        "latency_ms cost_microusd action"
    )
    packed: bytes = _SETTLE_ROW.pack(*(row[name] for name in head.split()), len(row["features"])) + row["features"]
    return packed + _sized(row["usage"]) + _sized(row["final"]) + _settle_tail(row)


def first_settle_row(raw: bytes) -> bytes:
    """A settle row of the first version, which told a breaker nothing of a result without a verdict."""
    row = _NO_BREAKER | layout_reader.settle_row(raw)
    if row["verdict"] == BreakerVerdict.NEITHER.value:
        row["verdict"] = 0
    head = (
        "nonce kind k_subject k_job k_due k_outbox k_state k_audit decision attempt before_state state code why "
        "keep_ms due_at verdict entry failures_max rate_max window_ms minimum timeout_ms successes_needed action"
    )
    packed: bytes = (
        _FIRST_SETTLE_ROW.pack(*(row[name] for name in head.split()), len(row["features"])) + row["features"]
    )
    return packed + _sized(row["usage"]) + _settle_tail(row)


def _sized(text: bytes) -> bytes:
    return pack(">I", len(text)) + text


def _settle_tail(row: Fields) -> bytes:
    packed: bytes = pack(">BB", row["n_corrections"], row["n_leases"])
    for c in row["corrections"]:
        # The window of a log stood in the place of the id.
        log = c["kind"] == layouts.KIND_LOG
        entry, window = (pack(">d", c["window_ms"]), 0) if log else (c["id"], c["window_ms"])
        packed += _CORRECTION.pack(c["k"], entry, window, c["charged_ms"], c["delta"])
    return packed + b"".join(pack(">H", lease["k"]) for lease in row["leases"])

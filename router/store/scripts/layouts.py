"""Layouts of what pods and scripts pass to each other: each field's name, width and meaning, in one place.

Python packs by these tables (`Layout.head` and its neighbours). The scripts read by them: `store.scripts.flatten`
expands their `@layout` and `@unpack` lines from here. A layout belongs to a script's version, so a field may be added,
moved or widened at will: pods of two versions never share a call. Stored values are not here, because two versions read
those; see `store.packing`.

`layout` explains the widths.

A decide row is: decide_row, its charges, its candidates (each followed by its own charges), its optional parts. A
settle row is: settle_row, its corrections, its leases, its optional parts. An optional part is there when its flag is
set; the parts stand in the order of their flags, and `extra_bytes` is the size of all. What few rows carry goes there:
a row without it pays nothing. `k_` fields are 1-based indexes of the call's keys; 0 is no key.

To add a field that most rows carry, add it to the row and pack it. To add one that few rows carry, add a flag and a
part, pack it behind the others, and read it where the script reads them.
"""

from router.domain.tasks.task import Dispatched
from router.store.scripts.layout import Layout

DECIDE_BATCH = Layout(
    idem_ms=("I4", "how long an answer is remembered"),
    audit_max=("I4", "records that a tenant's audit log keeps"),
    audit_ms=("I4", "how long an audit log lives after its last renewal"),
    grace_ms=("I4", "time for the pod to publish a pushed task before the sweeper does"),
    call_not_after=("d", "Redis ms after which no row of the call writes anything"),
    deadline_max_ms=("I4", "the longest deadline of a task"),
)
DECIDE_ROW = Layout(
    nonce=("I4", "comes back in the reply"),
    not_after=("d", "Redis ms after which the row writes nothing"),
    flags=("H", "row_flags"),
    k_idem=("H", "the remembered answer"),
    k_head=("H", "the tenant's head"),
    k_state=("H", "the tenant's state; 0: the policy has no breaker"),
    k_audit=("H", "the tenant's audit log"),
    k_pin=("H", "the session's pin; 0: none"),
    k_task=("H", "the delivery record; 0: not pushed"),
    k_due=("H", "the partition's due set; 0: not pushed"),
    k_job=("H", "the work item; 0: not pushed"),
    fingerprint=("c8", "5 bytes of the request's fingerprint, 3 of the tenant's mark"),
    decision=("c16", "the decision id that the row proposes; of a next attempt its task's"),
    all_open=("B", "when every breaker is open: 0 fail, 1 one probe, 2 last resort"),
    probes_max=("B", "probes that a half-open breaker admits at a time"),
    lease_ms=("I4", "how long an attempt may take; leases and probes end with it"),
    pin_ms=("I4", "life of the pin"),
    job_ms=("I4", "life of the work item and of the delivery record"),
    attempt=("B", "1, or the number of a task's next attempt"),
    n_charges=("B", "charges of the request; of a next attempt the leases that it holds again"),
    n_candidates=("B", "candidates, in their order"),
    extra_bytes=("H", "size of the optional parts at the end of the row"),
    features=("Hc0", "msgpack of domain.audit.records.DecisionFeatures"),
    tail=("Hc0", "what the remembered answer keeps of the request; see packing"),
    facts=("Hc0", "msgpack of domain.tasks.task.TaskFacts; empty: not pushed"),
)
# Optional parts of a decide row.
CLAIM = Layout(
    k_claim=("H", "who prepares the request"),
    claim_ms=("I4", "how long the claim lasts"),
)
MESSAGE = Layout(k_message=("H", "where the decision is found by the id of its message"))
FAILED = Layout(failed=("c8", "the provider that the caller reports as failed; zeros: whichever the pin names"))
STEPS = Layout(k_steps=("H", "where the decision is found as a step of its request"))
CHARGE = Layout(
    k=("H", "a state, a log or the set of leases"),
    kind=("B", "charge_kinds"),
    options=("B", "charge_options"),
    id=("c8", "the limit's entry in the state"),
    window_ms=("I4", "the limit's window; 0 of concurrency"),
    limit=("d", "units that the window admits"),
    units=("d", "units that this request takes"),
)
CANDIDATE = Layout(
    entry=("c8", "the provider's entry"),
    reason=("B", "domain.decide.decision.Reason when it is chosen"),
    bound=("I4", "tasks that the provider runs at a time; 0: no bound"),
    k_lease=("H", "the provider's set of leases; 0: no bound"),
    n_charges=("B", "limits of the provider's own; their charges follow"),
    offer=("Bc0", "expected latency, cost and name; see packing"),
)
# Replies to a decide row: all begin as `reply`; what follows belongs to the code, see RETURNS of lua/decide.lua.
_REPLY = {
    "nonce": ("I4", "of the row"),
    "code": ("B", "RETURNS of lua/decide.lua"),
    "stamp": ("c8", "the head's stamp; zeros: the head was not read"),
}
REPLY = Layout(**_REPLY, rest=("c0", "by code"))
ADMITTED = Layout(
    **_REPLY,
    index=("B", "the chosen candidate, from 0"),
    reason=("B", "domain.decide.decision.Reason"),
    pin_state=("B", "domain.decide.decision.PinState"),
    n_shadow=("B", "bytes of `shadow`"),
    n_verdicts=("B", "bytes of `verdicts`"),
    verdicts=("c0", "a domain.decide.decision.Verdict for each candidate"),
    shadow=("c0", "indexes of the charges whose limit would have refused if it were enforced"),
    seen=("c0", "GUARANTEES of lua/decide.lua; empty unless the row is a preview or explains"),
)
LIMITED = Layout(
    charge=("B", "index of the charge that refused"),
    retry_after_ms=("d", "-1: it can never pass"),
)
NO_CANDIDATE = Layout(
    retry_after_ms=("d", "-1: unknown"),
    n_verdicts=("B", "bytes of `verdicts`"),
    verdicts=("c0", "as of an admitted row"),
)
BUSY = Layout(left_ms=("d", "how long the claim of another pod has left"))

SETTLE_BATCH = Layout(
    audit_max=("I4", "records that a tenant's audit log keeps"),
    deadline_max_ms=("I4", "the longest deadline of a task"),
)
SETTLE_ROW = Layout(
    nonce=("I4", "comes back in the reply"),
    kind=("B", "settle_kinds"),
    flags=("H", "settle_flags"),
    k_subject=("H", "by kind: the delivery record, or the remembered answer; 0 of a note"),
    k_job=("H", "the work item; 0: no task"),
    k_due=("H", "the partition's due set; 0: no task"),
    k_outbox=("H", "the partition's usage outbox; 0: no usage"),
    k_state=("H", "the tenant's state; 0: no verdict"),
    k_audit=("H", "the tenant's audit log"),
    decision=("c16", "the decision id"),
    attempt=("B", "the attempt that moves, which the delivery record must be at"),
    before_state=("B", "the delivery record's state must be before this one"),
    state=("B", "domain.tasks.task.TaskState after the move"),
    code=("B", "code of the audit record"),
    why=("H", "domain.tasks.task.Why of the move"),
    keep_ms=("I4", "how long the ended task is remembered"),
    due_at=("d", "Redis ms when the task is looked at next; 0: the move ends it"),
    verdict=("B", "domain.tasks.result.BreakerVerdict; 0: the policy has no breaker"),
    entry=("c8", "the provider's entry"),
    action=("B", "domain.tasks.task.Action of the audit record; 0: no record"),
    n_corrections=("B", "reservations whose units turned out to be others"),
    n_leases=("B", "leases that end"),
    extra_bytes=("H", "size of the optional parts at the end of the row"),
    features=("Hc0", "msgpack of the audit record's features"),
    usage=("I4c0", "usage message for the outbox; may be empty"),
    final=("I4c0", "the final result for the caller, see task_records; may be empty"),
)
# Optional parts of a settle row.
BREAKER = Layout(
    failures_max=("I4", "failures in a row that open the breaker"),
    rate_max=("d", "share of failures in the window that opens it"),
    window_ms=("I4", "the window"),
    minimum=("I4", "calls that the window must hold before the share counts"),
    timeout_ms=("I4", "how long it stays open"),
    successes_needed=("I4", "successful probes that close it"),
)
FIGURES = Layout(
    k_figures=("H", "the tenant's live figures"),
    latency_ms=("d", "latency of the result; below 0: unknown"),
    cost_microusd=("d", "cost of the result; below 0: unknown"),
)
MARK = Layout(mark=("c8", "which result settles the decision; see packing"))
CORRECTION = Layout(
    k=("H", "a state or a log"),
    kind=("B", "charge_kinds: sliding or log"),
    id=("c8", "the limit's entry in the state"),
    window_ms=("I4", "the limit's window"),
    charged_ms=("d", "Redis ms of the charge"),
    delta=("d", "units that were used beyond the reservation; below 0: to give back"),
)
LEASE = Layout(k=("H", "the set of leases"))
SETTLE_REPLY = Layout(
    nonce=("I4", "of the row"),
    code=("B", "RETURNS of lua/settle.lua"),
    rest=("c0", "by code"),
)

MEASURE_ROW = Layout(
    k_head=("H", "the tenant's head"),
    k_state=("H", "the tenant's state"),
    n_counters=("H", "counters of limits and bounds; they follow"),
)
COUNTER = Layout(
    k=("H", "a state, a log or a set of leases"),
    kind=("B", "charge_kinds"),
    id=("c8", "the limit's entry in the state"),
    window_ms=("I4", "the limit's window; 0 of concurrency"),
)
MEASURED = Layout(
    open=("I4", "open breakers"),
    half_open=("I4", "half-open breakers"),
    forced=("I4", "breakers that an operator holds open"),
)

LAYOUTS = {
    "decide_batch": DECIDE_BATCH,
    "decide_row": DECIDE_ROW,
    "claim": CLAIM,
    "message": MESSAGE,
    "failed": FAILED,
    "steps": STEPS,
    "charge": CHARGE,
    "candidate": CANDIDATE,
    "reply": REPLY,
    "admitted": ADMITTED,
    "limited": LIMITED,
    "no_candidate": NO_CANDIDATE,
    "busy": BUSY,
    "settle_batch": SETTLE_BATCH,
    "settle_row": SETTLE_ROW,
    "breaker": BREAKER,
    "figures": FIGURES,
    "mark": MARK,
    "correction": CORRECTION,
    "lease": LEASE,
    "settle_reply": SETTLE_REPLY,
    "measure_row": MEASURE_ROW,
    "counter": COUNTER,
    "measured": MEASURED,
}

ROW_RESERVED, ROW_RENEW, ROW_METER, ROW_PREVIEW, ROW_CLAIM, ROW_EXPLAIN, ROW_MESSAGE = (1 << n for n in range(7))
ROW_FAILED, ROW_STEPS = 1 << 7, 1 << 8
KIND_SLIDING, KIND_LOG, KIND_CONCURRENCY = range(3)
CHARGE_SHADOW, CHARGE_RECORDS = 1, 2
SETTLE_TASK, SETTLE_ANSWER, SETTLE_NOTE = 1, 2, 3
SETTLE_BREAKER, SETTLE_FIGURES, SETTLE_MARK, SETTLE_REOPENS = 1, 2, 4, 8

# Numbers with names; `@names` of a script makes constants of them, which are called as here.
NAMES = {
    # The row reserves units, renews the audit log's life, is metered. Then what few rows ask for: to write nothing, to
    # claim the request (part CLAIM), to get what was seen, to be found by a message (part MESSAGE); a session whose
    # caller reports a failed provider (part FAILED); to be found as a step of its request (part STEPS).
    "row_flags": {
        "ROW_RESERVED": ROW_RESERVED,
        "ROW_RENEW": ROW_RENEW,
        "ROW_METER": ROW_METER,
        "ROW_PREVIEW": ROW_PREVIEW,
        "ROW_CLAIM": ROW_CLAIM,
        "ROW_EXPLAIN": ROW_EXPLAIN,
        "ROW_MESSAGE": ROW_MESSAGE,
        "ROW_FAILED": ROW_FAILED,
        "ROW_STEPS": ROW_STEPS,
    },
    "charge_kinds": {"KIND_SLIDING": KIND_SLIDING, "KIND_LOG": KIND_LOG, "KIND_CONCURRENCY": KIND_CONCURRENCY},
    # The limit only reports; the limit is the tenant's quota of audit records, which refusals are charged to as well.
    "charge_options": {"CHARGE_SHADOW": CHARGE_SHADOW, "CHARGE_RECORDS": CHARGE_RECORDS},
    "settle_kinds": {"SETTLE_TASK": SETTLE_TASK, "SETTLE_ANSWER": SETTLE_ANSWER, "SETTLE_NOTE": SETTLE_NOTE},
    # The row has the part BREAKER, the part FIGURES, the part MARK; it may move a task that ended as `dispatched`.
    "settle_flags": {
        "SETTLE_BREAKER": SETTLE_BREAKER,
        "SETTLE_FIGURES": SETTLE_FIGURES,
        "SETTLE_MARK": SETTLE_MARK,
        "SETTLE_REOPENS": SETTLE_REOPENS,
    },
    "dispatched": {"DISPATCH_OPEN": Dispatched.OPEN.value, "DISPATCH_FAILED": Dispatched.FAILED.value},
}

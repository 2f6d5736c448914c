"""What a campaign must show, read from the streams and the store from outside, and the table of it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct
from nats.errors import TimeoutError as NatsTimeoutError

from router.domain.audit.records import AuditEntry
from router.domain.ids import from_text, task_id, to_text
from router.domain.tasks.task import TaskRecord, TaskState
from router.store.tasks.store import RedisTasks
from tests.chaos.load import TOLD, Asked
from tests.chaos.world import CONSUMERS, World
from tests.cli.conftest import run_process
from tests.fleet.foreign import ASSIGN, ASSIGNED, USAGE, Body

ENDS = ("result.settled", "assignment.rejected", "assignment.timed_out")
"""The actions that end an attempt."""


class Bar(Struct, frozen=True):
    """One line of the table; `examples` of what missed it."""

    name: str
    wanted: int
    found: int
    examples: tuple[str, ...] = ()

    @property
    def held(self) -> bool:
        """Whether it is as it must be."""
        return self.wanted == self.found


class Store:
    """What the store knows of the tasks of a campaign."""

    def __init__(self, world: World, asked: Mapping[str, Asked]) -> None:
        self._fleet = world.fleet
        nodes = world.fleet.nodes
        self.tasks = RedisTasks(world.fleet.keys, nodes, shared_calls=nodes.shares_calls)
        decided = {name: d for name, one in asked.items() for d in one.decisions}
        self.ids = {name: task_id(from_text(d) or b"") for name, d in decided.items() if asked[name].pushed}
        self.reported = {d for name, d in decided.items() if not asked[name].pushed}
        """Decisions that the caller has run itself and reported as successes."""

    async def records(self) -> dict[str, Any]:
        """The delivery record of each answered request."""
        names, ids = list(self.ids), list(self.ids.values())
        found: list[Any] = []
        for at in range(0, len(ids), 500):
            found += await self.tasks.records(ids[at : at + 500])
        return dict(zip(names, found, strict=True))

    async def sizes(self) -> tuple[int, int]:
        """Entries in the due sets, and in the outboxes."""
        keys = self._fleet.keys
        due = [await self._fleet.redis("ZCARD", keys.due(p)) for p in range(keys.partitions)]
        return sum(due), await self._fleet.outbox()

    async def leases(self) -> int:
        """Leases that are still held."""
        nodes = self._fleet.nodes
        seconds, micros = (await nodes.each("TIME"))[0]
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        held = 0
        async for page in nodes.pages(b"*:c:*", 1000):
            held += sum([await nodes.call("ZCOUNT", key, f"({now_ms}", "+inf") for key in page])
        return held

    async def jobs(self) -> int:
        """Work items of ended tasks that are still kept."""
        ids = list(self.ids.values())
        kept = [await self.tasks.jobs(ids[at : at + 500]) for at in range(0, len(ids), 500)]
        return sum(job is not None for jobs in kept for job in jobs)


async def waiting(world: World) -> dict[str, int]:
    """What the fleet's consumers have still to do: pending and unacknowledged together."""
    js = world.caller.client.jetstream()
    infos = {name: await js.consumer_info(stream, name) for stream, name in CONSUMERS}
    return {name: (i.num_pending or 0) + (i.num_ack_pending or 0) for name, i in infos.items()}


async def held(world: World, stream: str, subject: str) -> list[Body]:
    """All that a stream holds."""
    js = world.caller.client.jetstream()
    left = (await js.stream_info(stream)).state.messages
    source = await js.pull_subscribe(subject, config=None, stream=stream)
    found: list[Body] = []
    try:
        while left > 0:
            batch = await source.fetch(min(500, left), timeout=5)
            left -= len(batch)
            for message in batch:
                found.append(orjson.loads(message.data))
                await message.ack()
    except NatsTimeoutError:
        found.append({"usage_id": f"({stream} was not read to its end)"})
    finally:
        await source.unsubscribe()
    return found


async def drained(world: World, store: Store) -> bool:
    """Whether nothing is left to do for anybody, and every dispatched task has ended.

    :raises StoreError: the store does not answer.
    """
    if any(await store.sizes()) or any((await waiting(world)).values()):
        return False
    return all(isinstance(r, TaskRecord) and r.state.final for r in (await store.records()).values())


def _some(names: Any) -> tuple[str, ...]:
    return tuple(sorted(map(str, names)))[:5]


def _zero(name: str, wrong: Any) -> Bar:
    items = list(wrong)
    return Bar(name, 0, len(items), _some(items))


def of_requests(asked: Mapping[str, Asked], audit: Mapping[str, list[AuditEntry]]) -> list[Bar]:
    """Accepted = answered, and one decision each."""
    made = Counter(
        str(e.details["request_id"]) for entries in audit.values() for e in entries if e.action == "decision.made"
    )
    accepted = [name for name, one in asked.items() if one.answered or made[name]]
    return [
        Bar("requests accepted = answered", len(accepted), sum(asked[n].answered for n in accepted)),
        _zero("requests without an answer", (n for n, one in asked.items() if not one.answered)),
        _zero("requests with two decisions", (n for n, one in asked.items() if len(one.decisions) > 1)),
        _zero("requests whose decision is not audited once", (n for n in asked if made[n] != 1)),
    ]


def of_tasks(records: Mapping[str, Any], audit: Mapping[str, list[AuditEntry]]) -> list[Bar]:
    """Each dispatched task ends in one terminal state, and each of its attempts once.

    A result that comes after its deadline and before the next attempt has begun still saves the task: that attempt has
    timed out and is settled.
    """
    ended = {n: r for n, r in records.items() if isinstance(r, TaskRecord) and r.state.final}
    stories = _stories(audit)
    wrong, other = [], []
    for name, record in ended.items():
        attempts = [[e for e in stories[name] if e.details["attempt"] == n + 1] for n in range(record.attempt)]
        *early, last = [[e.action for e in entries if e.action in ENDS] for entries in attempts]
        saved = last == ["assignment.timed_out", "result.settled"] or _reopened(stories[name], record.attempt)
        if any(len(ends) != 1 for ends in early) or not (len(last) == 1 or saved):
            wrong.append(name)
        final = [e for e in attempts[-1] if e.action in ENDS][-1:]
        success = [e.action == "result.settled" and e.outcome == "success" for e in final] == [True]
        if success != (record.state is TaskState.SUCCEEDED):
            other.append(name)
    open_ = [n for n in records if n not in ended]
    return [
        Bar("tasks dispatched = ended", len(records), len(ended), _told(open_, stories)),
        Bar("tasks with an attempt that ended never or twice", 0, len(wrong), _told(wrong, stories)),
        Bar("tasks whose audit tells another end", 0, len(other), _told(other, stories)),
    ]


def _reopened(story: Sequence[AuditEntry], attempt: int) -> bool:
    """Whether the last attempt ended undispatched or unconfirmed, and a result settled it afterwards."""
    ends = [e for e in story if e.details["attempt"] == attempt and e.action in ENDS]
    if len(ends) != 2 or ends[1].action != "result.settled":
        return False
    first = ends[0]
    return first.details.get("error_code") == "DISPATCH_FAILED" or "no stream confirmed" in str(
        first.details.get("note")
    )


def _stories(audit: Mapping[str, list[AuditEntry]]) -> dict[str, list[AuditEntry]]:
    """The steps of each request's task, in order."""
    found: dict[str, list[AuditEntry]] = defaultdict(list)
    for entries in audit.values():
        for entry in entries:
            if "attempt" in entry.details:
                found[str(entry.details["request_id"])].append(entry)
    return found


def _told(names: list[str], stories: Mapping[str, list[AuditEntry]]) -> tuple[str, ...]:
    """The first of them with what the audit says."""
    return tuple(f"{name} ({'; '.join(_step(entry) for entry in stories[name])})" for name in names[:5])


def _step(entry: AuditEntry) -> str:
    return f"{entry.id} {entry.action} {entry.details['attempt']} {entry.outcome or ''}".rstrip()


def of_usage(records: Mapping[str, Any], store: Store, usage: Counter[str]) -> list[Bar]:
    """Usage events = settled successes."""
    done = [n for n, r in records.items() if isinstance(r, TaskRecord) and r.state is TaskState.SUCCEEDED]
    earned = {to_text(store.ids[n]) for n in done} | store.reported
    return [
        Bar("successes settled or reported = usage events", len(earned), sum(usage.values())),
        _zero("usage lost", earned - set(usage)),
        _zero("usage doubled", (u for u, n in usage.items() if n > 1)),
        _zero("usage of no success", set(usage) - earned),
    ]


_STATUS = {
    TaskState.SUCCEEDED: "success",
    TaskState.FAILED: "error",
    TaskState.TIMED_OUT: "timeout",
    TaskState.CANCELLED: "cancelled",
}


def of_finals(records: Mapping[str, Any], told: Sequence[Body], audit: Mapping[str, list[AuditEntry]]) -> list[Bar]:
    """Each caller is told the end of its task, one end, and as it was; a repeat of the request is told it again.

    A task that ended while nobody knew whether a worker had it is settled by a later result; its caller was told
    already, and a repeat is told the end that holds then.
    """
    stories = _stories(audit)
    ended = {n: r for n, r in records.items() if isinstance(r, TaskRecord) and r.state.final}
    ends: dict[str, list[str]] = defaultdict(list)
    for final in told:
        ends[str(final.get("request_id"))].append(str(final.get("status")))
    other = [
        n
        for n, r in ended.items()
        if ends.get(n, [])[:1] != [_STATUS[r.state]] and not _reopened(stories[n], r.attempt)
    ]
    two = [
        n
        for n, statuses in ends.items()
        if len(set(statuses)) > 1
        and not (n in ended and _reopened(stories[n], ended[n].attempt) and statuses[-1] == _STATUS[ended[n].state])
    ]
    return [
        Bar("final results told = tasks ended", len(ended), len(ended.keys() & ends.keys())),
        _zero("tasks whose caller was told two ends", two),
        _zero("tasks whose caller was told another end", other),
    ]


def of_events(work: Sequence[Body], events: Sequence[Body]) -> list[Bar]:
    """Each assignment has its event, once."""
    told = Counter(str(event.get("assignment_id")) for event in events)
    return [
        _zero("assignments without their event", {str(w.get("assignment_id")) for w in work} - told.keys()),
        _zero("events of an assignment that came twice", (a for a, n in told.items() if n > 1)),
    ]


async def of_rest(world: World, store: Store) -> list[Bar]:
    """Nothing is left over anywhere, and nobody has met a bug."""
    due, outbox = await store.sizes()
    left = await waiting(world)
    pods = world.fleet.pods
    gauges = [(await pod.metrics()).get("router_usage_reconciliation", -1.0) for pod in pods]
    where = ("--nats", world.fleet.nats.url, "--redis", world.fleet.valkey.url, "--since", "12h", "--json")
    env = {"ROUTER_REDIS_CLUSTER": "true"} if world.fleet.valkey.rights.cluster else {}
    ran = await run_process("usage", "reconcile", *where, cwd=world.fleet.folder, env=env)
    findings = orjson.loads(ran.out)["findings"] if ran.out else [ran.err]
    dlq = (await world.caller.client.jetstream().stream_info("DLQ")).state.messages
    bugs = [f"{p.name}: {x['message']}" for p in pods for x in p.logged("pod.bug")]
    logs = [p.log for p in pods] + [w.log for w in world.workers]
    bugs += [f"{log.name}: {line[:300]}" for log in logs for line in _unhandled(log)]
    return [
        _zero("router usage reconcile: findings", map(str, findings)),
        _zero("pods whose reconciliation is not 0", (g for g in gauges if g != 0)),
        Bar("leases held", 0, await store.leases()),
        Bar("entries in the due sets", 0, due),
        Bar("entries in the outbox", 0, outbox),
        Bar("work items of ended tasks", 0, await store.jobs()),
        _zero("consumers with something to do", (f"{name}: {n}" for name, n in left.items() if n)),
        Bar("dead letters", 0, dlq),
        _zero("bugs and unhandled errors in logs", bugs),
        _zero("processes that ended by themselves or not in order", world.surprises),
    ]


def _unhandled(log: Path) -> list[str]:
    """What asyncio complains of when it ends up nowhere."""
    return [line for line in log.read_text().splitlines() if "was never retrieved" in line]


async def measured(world: World, asked: Mapping[str, Asked]) -> list[Bar]:
    """All bars."""
    store = Store(world, asked)
    audit = {tenant: await world.fleet.audit(tenant) for tenant in world.tenants}
    records = await store.records()
    usage = Counter(str(event["usage_id"]) for event in await held(world, "USAGE", USAGE))
    work, events = await held(world, "ASSIGN", ASSIGN), await held(world, "ASSIGNED", ASSIGNED)
    told = await held(world, TOLD.upper(), f"{TOLD}.>")
    return [
        *of_requests(asked, audit),
        *of_tasks(records, audit),
        *of_usage(records, store, usage),
        *of_finals(records, told, audit),
        *of_events(work, events),
        *(await of_rest(world, store)),
    ]

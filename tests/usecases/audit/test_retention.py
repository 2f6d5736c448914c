"""Retention and export on a real store: who is alerted, what is exported once, and what a failing sink does."""

from collections.abc import AsyncIterator, Sequence
from secrets import token_hex

import pytest
from prometheus_client import CollectorRegistry

from router.domain.alert import Condition
from router.domain.audit.records import AuditEntry
from router.errors import ExportFailed
from router.store.audit.log import RedisAudit
from router.store.audit.retention import RedisRetention, RetentionBounds
from router.store.keys import Keys
from router.store.servers.nodes import SingleNode
from router.telemetry import Telemetry
from router.usecases.audit.export import AuditExport
from router.usecases.audit.retention import LAG_WINDOW_S, Retention
from tests.usecases.fakes.alerts import RecordedAlerts


class Outside:
    """A sink that can be broken: `fails` of the next calls do not store."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.fails = 0

    async def store(self, tenant_id: str, entries: Sequence[AuditEntry]) -> None:
        """Keep the ids."""
        assert {e.tenant_id for e in entries} == {tenant_id}
        if self.fails:
            self.fails -= 1
            raise ExportFailed("the disk is full")
        self.ids += [e.id for e in entries]


class Pod:
    """The audit parts of one pod over a store."""

    def __init__(self, keys: Keys, nodes: SingleNode, sink: Outside, *, maximum: int = 4) -> None:
        self.telemetry = Telemetry(CollectorRegistry())
        self.alerts, self.allowed = RecordedAlerts(), True
        store = RedisRetention(keys, nodes, RetentionBounds(max_len=10))
        self.export = AuditExport(
            RedisAudit(keys, nodes), store, [sink], self.telemetry, allowed=lambda: self.allowed, maximum=maximum
        )
        self.now = 0.0
        self.retention = Retention(
            store,
            self.telemetry,
            self.alerts,
            max_len=10,
            export=self.export,
            may_work=lambda: True,
            clock=lambda: self.now,
        )

    async def all_looks(self) -> None:
        """Until nothing is due."""
        while await self.retention.poll():
            pass

    def total(self, name: str, **labels: str) -> float:
        """A metric."""
        return self.telemetry.registry.get_sample_value(name, labels) or 0.0


class Rig:
    """A store with one tenant's log."""

    def __init__(self, nodes: SingleNode) -> None:
        self.nodes, self.keys, self.sink = nodes, Keys(f"t{token_hex(5)}"), Outside()

    async def add(self, count: int, maximum: int = 1_000) -> list[str]:
        """Entries of now; their ids."""
        key = self.keys.tenant("t").audit
        return [(await self.nodes.call("XADD", key, "MAXLEN", maximum, "*", "r", b"x")).decode() for _ in range(count)]

    async def due(self) -> None:
        """Look at once."""
        await self.nodes.call("ZADD", self.keys.retain(self.keys.tenant("t").partition), 0, "t")

    def pod(self, **options: int) -> Pod:
        """One more pod."""
        return Pod(self.keys, self.nodes, self.sink, **options)


@pytest.fixture
async def rig(redis_url: str) -> AsyncIterator[Rig]:
    """A store of the test's own on the session's server."""
    nodes = SingleNode(redis_url)
    yield Rig(nodes)
    await nodes.close()


async def test_an_export_in_steps_holds_every_entry_once_in_order(rig: Rig) -> None:
    """More than one run takes; another pod goes on where the first one ended."""
    ids = await rig.add(10)
    first, second = rig.pod(), rig.pod()
    first.retention.served("t")
    assert await first.retention.poll() == 1
    assert rig.sink.ids == ids[:4]
    await second.all_looks()
    assert rig.sink.ids == ids
    assert second.total("router_audit_exported_total") == 6


async def test_a_sink_that_fails_is_tried_again(rig: Rig) -> None:
    """Counted, the mark stays, and the next look stores what was not stored."""
    ids = await rig.add(3)
    pod = rig.pod()
    rig.sink.fails = 1
    pod.retention.served("t")
    await pod.all_looks()
    assert rig.sink.ids == []
    assert pod.total("router_audit_export_failures_total") == 1
    await rig.due()
    await pod.all_looks()
    assert rig.sink.ids == ids


async def test_what_the_gate_forbids_is_not_exported(rig: Rig) -> None:
    """Until it allows it."""
    ids = await rig.add(3)
    pod = rig.pod()
    pod.allowed = False
    pod.retention.served("t")
    await pod.all_looks()
    assert rig.sink.ids == []
    pod.allowed = True
    await rig.due()
    await pod.all_looks()
    assert rig.sink.ids == ids


async def test_a_cut_inside_the_age_is_counted_and_alerted(rig: Rig) -> None:
    """By tenant; a log below its bound is not."""
    pod = rig.pod()
    pod.allowed = False
    await rig.add(5)
    pod.retention.served("t")
    await pod.all_looks()
    assert pod.alerts.events == []
    await rig.add(12, maximum=10)
    await rig.due()
    await pod.all_looks()
    assert pod.alerts.events == [(Condition.AUDIT_CUT_INSIDE_AGE, "t")]
    assert pod.total("router_audit_cut_total", by="length") == 7
    assert pod.total("router_audit_appended_total", tenant="other") == 12


async def test_an_export_that_falls_behind_is_alerted(rig: Rig) -> None:
    """When most of the log waits for it, and when entries were cut before it read them."""
    pod = rig.pod()
    await rig.add(9)
    rig.sink.fails = 2
    pod.retention.served("t")
    await pod.all_looks()
    assert pod.alerts.events == [(Condition.AUDIT_EXPORT_BEHIND, "t")]
    await rig.add(4, maximum=10)
    await rig.due()
    await pod.all_looks()
    assert (Condition.AUDIT_EXPORT_BEHIND, "t") in pod.alerts.events[1:]
    assert pod.total("router_audit_export_lost_total") == 3


async def test_the_lag_of_the_export_is_a_metric(rig: Rig) -> None:
    """The largest share of a log's bound that waits, for as long as it takes to look at every log again."""
    pod = rig.pod()
    await rig.add(7)
    rig.sink.fails = 1
    pod.retention.served("t")
    await pod.all_looks()
    assert pod.total("router_audit_export_lag_share") == pytest.approx(0.7)
    await rig.due()
    await pod.all_looks()
    assert len(rig.sink.ids) == 7
    for lag in (0.7, 0.7, 0.0):
        await pod.retention.poll()
        assert pod.total("router_audit_export_lag_share") == pytest.approx(lag)
        pod.now += LAG_WINDOW_S

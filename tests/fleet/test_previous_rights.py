"""A pod of this version with the rights of the version before: ready, and what it lacks is off by name.

`TEST_RIGHTS=previous` runs whole modules so (`make test-rights`); this is what every run has.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router.app.adapter_settings import nats_account
from router.bus.rights import user
from router.bus.streams.specs import matches
from router.domain.access import Party
from router.settings import load
from router.store.servers.rights import Server, commands
from tests import previous_rights
from tests.fleet.foreign import GET_DECISION, USAGE, Foreign, Worker, task
from tests.fleet.harness import PLAIN, Fleet, until
from tests.servers import NatsProcess, ValkeyProcess

LIMITED = PLAIN | {"limits": [{"id": "two", "scope": "tenant", "resource": "requests", "limit": 2, "window": "60s"}]}
NEW = {"reply_streams", "bound_queries", "state_ranges"}
"""The parts that need rights which the version before did not need. Each stands under "New rights" in CHANGELOG.md."""


class Previous(ValkeyProcess):
    """Pods have the rights of the version before."""

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        return self.previous_url


class PreviousNats(NatsProcess):
    """The same for NATS."""

    @property
    def pod_url(self) -> str:
        """The address for pods."""
        return self.previous_url


async def test_the_pod_serves_and_says_what_is_off(servers: None, tmp_path: Path) -> None:
    """The tests of the version before, in short: decide, repeat, refuse, look up, dispatch, settle, meter."""
    nats, valkey = PreviousNats(tmp_path / "nats"), Previous(tmp_path / "valkey")
    nats.grant_previous()
    async with (
        Fleet(tmp_path / "fleet", pods=1, nats=nats, valkey=valkey) as fleet,
        Foreign(nats.url) as caller,
    ):
        (pod,) = fleet.pods
        assert (await pod.readyz())[0] == 200
        tenant = await fleet.tenant(LIMITED)
        first = await caller.ask(task(tenant, "one"))
        assert (await caller.ask(task(tenant, "one"))).decision == first.decision
        query: dict[str, Any] = {"version": "1", "tenant_id": tenant, "request_id": "one"}
        assert (await caller.ask(query, subject=GET_DECISION)).decision["decision_id"] == first.decision["decision_id"]
        usage = await caller.watch(USAGE)
        await Worker(caller).start()
        async with asyncio.timeout(30):
            assert (await caller.ask(task(tenant, "two", push_assignment=True))).ok
            await usage.one(request_id="two")
        assert (await caller.ask(task(tenant, "three"))).error["code"] == "rate_limit_exceeded"

        async def named() -> bool:
            return set((await pod.readyz())[1]["degraded"]) == NEW

        await until(named, 30, f"{NEW} are off")
        status, body = await pod.readyz()
        assert status == 200
        assert "get_decision" in body["degraded_reasons"]["bound_queries"]
        assert len(pod.logged("pod.degraded")) == len(NEW)
        assert not pod.logged("pod.not_ready")


def test_every_new_right_is_in_the_changelog() -> None:
    """What pods need now, and were not allowed before, stands under "New rights", for operators before a roll."""
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
    section = text.partition("### New rights")[2].partition("\n### ")[0]
    allowed = {word[1:] for word in previous_rights.REDIS.split() if word.startswith("+")}
    new = [command for command in commands(Party.POD, Server()) if command not in allowed]
    now = user(Party.POD, nats_account(load({"ROUTER_NATS_URL": "nats://127.0.0.1:4222"})))
    for needed, before in (
        (now.publish, previous_rights.NATS_PUBLISH),
        (now.subscribe, previous_rights.NATS_SUBSCRIBE),
    ):
        new += [s for s in needed if not any(covers(pattern, subject=s) for pattern in before)]
    assert {"$JS.API.STREAM.LIST", "beamline.router.v1.get_decision.>"} <= set(new)
    assert [right for right in new if f"`{right}`" not in section] == []


def covers(pattern: str, *, subject: str) -> bool:
    """Whether all subjects of one pattern are subjects of the other."""
    return pattern == subject or matches(pattern, subject=subject.replace("*", "x").replace(">", "x.x"))


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [("a.>", "a.b.*", True), ("a.*", "a.>", False), ("a.b", "a.b", True), ("a.*", "a.*", True), ("a.*", "b.c", False)],
)
def test_patterns_that_cover_patterns(pattern: str, subject: str, covered: bool) -> None:
    """A tail is not covered by one token."""
    assert covers(pattern, subject=subject) is covered

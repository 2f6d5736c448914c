"""Floods of garbage on every subject that an outsider may reach: a bounded log and DLQ, and a number of the rest."""

import pytest

from router.usecases.messages.dead_letter_limit import PER_CAUSE
from router.wire import subjects
from tests.fleet.conftest import Own
from tests.fleet.foreign import ACK, RESULT, task
from tests.fleet.harness import PLAIN, until

LOG_BYTES = 60_000


@pytest.mark.parametrize("subject", ["announcements", "heartbeats", "results", "acks", "requests"])
async def test_a_flood_costs_a_few_lines(own: Own, subject: str) -> None:
    """10,000 broken messages (3,000 in streams): the log stays small, and requests are answered as before."""
    fleet, caller = await own(pods=1, policies={"acme": {"default": PLAIN}})
    assert (await caller.ask(task("acme"))).ok
    before = fleet.pods[0].log.stat().st_size
    named, count = _subject(subject)
    for n in range(count):
        await caller.client.publish(named, b"{broken %d" % n, reply="_INBOX.nobody" if subject == "requests" else "")
    await caller.client.flush()
    if named in (RESULT, ACK):

        async def counted() -> bool:
            return bool(await fleet.total("router_dead_letters_total") == count)

        await until(counted, 60, "every message is counted")
        dlq = (await caller.client.jetstream().stream_info("DLQ")).state.messages
        assert 0 < dlq <= PER_CAUSE
    assert (await caller.ask(task("acme"))).ok
    assert fleet.pods[0].log.stat().st_size - before < LOG_BYTES


def _subject(name: str) -> tuple[str, int]:
    return {
        "announcements": (subjects.POLICY_CHANGED, 10_000),
        "heartbeats": (subjects.HEARTBEAT, 10_000),
        "results": (RESULT, 3_000),
        "acks": (ACK, 3_000),
        "requests": ("beamline.router.v1.decide", 10_000),
    }[name]

"""A small storm; `make storm` takes 100,000 requests, the nightly run 1,000,000."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from router.domain.decide.outcome import Admitted
from router.store.servers.nodes import SingleNode
from tests.fuzz.storm import Storm
from tests.servers import ValkeyProcess
from tests.store.harness import Ask, policy, request
from tests.store.pods import Pod, fresh_keys


@pytest.mark.server
async def test_no_answer_carries_anothers_data(tmp_path: Path) -> None:
    """Every answer that arrives is its caller's, and none hangs; every kind of end was seen."""
    with ValkeyProcess(tmp_path) as server:
        storm = Storm(server.port, 7)
        await storm.run(4_000)
    assert storm.wrong == []
    seen = storm.decided, storm.replayed, storm.read, storm.cancelled, storm.unanswered, storm.cuts
    assert min(seen) > 10, str(storm)


async def test_an_answer_of_another_is_found(redis_url: str) -> None:
    """A decision, a replay and a value of somebody else are wrong; one's own are not."""
    asks = [Ask(request(t, "r"), policy(f"p-{t}")) for t in ("one", "two")]
    nodes = SingleNode(redis_url)
    async with Pod(nodes, fresh_keys()) as pod:
        made = await pod.decide(*asks)
        again = await pod.decide(*asks)
    await nodes.close()
    storm = Storm(0, 1)
    storm.values = {b"a": b"1", b"b": b"2"}
    for i, ask in enumerate(asks):
        storm.check(ask, made[i])
        storm.check(ask, again[i])
    storm.check_read(b"a", b"1")
    assert storm.wrong == []
    storm.check(asks[0], made[1])
    storm.check(asks[1], again[0])
    storm.check_read(b"a", b"2")
    assert isinstance(made[0], Admitted)
    storm.check(asks[0], replace(made[0], decision_id=bytes(16)))
    assert len(storm.wrong) == 4

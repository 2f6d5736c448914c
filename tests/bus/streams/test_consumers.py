"""The table of the contract, on a server of its own."""

import asyncio
import json

import pytest

from router.bus.client.connection import Bus
from router.bus.client.faults import translated
from router.bus.streams import consumers as fleet
from router.bus.streams.keeper import StreamKeeper
from router.bus.streams.registry import Streams
from router.bus.streams.specs import StreamSpec

CONTRACT: dict[str, tuple[list[str], int, int | None]] = {
    "ASSIGN": (["caf.exec.assign.v1", "caf.exec.gpu.v1"], 3600, 3600),
    "ASSIGNED": (["caf.exec.assigned.v1"], 86400, 3600),
    "ACK": (["caf.exec.assign.v1.ack"], 3600, None),
    "RESULT": (["caf.exec.result.v1"], 3600, None),
    "USAGE": (["beamline.usage.v1.metered"], 604800, 3600),
    "ALERT": (["beamline.alert.v1.*"], 604800, 3600),
    "DLQ": (["caf.exec.result.v1.dlq", "caf.exec.assign.v1.ack.dlq"], 1209600, 3600),
}


def contract(bus: Bus) -> Streams:
    """The whole table."""
    specs = [StreamSpec(name, tuple(subjects), age, dedup) for name, (subjects, age, dedup) in CONTRACT.items()]
    return Streams(bus, specs, fleet.consumers(assign="ASSIGN", ack="ACK", result="RESULT"))


async def test_the_whole_table_is_created(own_bus: Bus) -> None:
    """Every stream has its subjects, age and window (two minutes where none is named), and the consumers are there."""
    ensured = await contract(own_bus).ensure()
    assert ensured.created == (*CONTRACT, "ASSIGN/workers", "ACK/router-fleet-acks", "RESULT/router-fleet-results")
    for name, (subjects, age_s, dedup_s) in CONTRACT.items():
        config = json.loads((await own_bus.request(f"$JS.API.STREAM.INFO.{name}", b"")).data)["config"]
        assert (config["subjects"], config["max_age"], config["duplicate_window"]) == (
            subjects,
            age_s * 1_000_000_000,
            (dedup_s or 120) * 1_000_000_000,
        )


async def test_no_stream_of_the_contract_lies_over_a_request_subject(own_bus: Bus) -> None:
    """The keeper finds a fresh fleet in order, twice, so that nothing differs from itself."""
    keeper = StreamKeeper(own_bus, contract(own_bus))
    await keeper.poll()
    await keeper.poll()
    assert keeper.covered == {}
    assert keeper.ensured.differences == ()


async def test_a_keeper_that_is_woken_and_stopped_at_once_stops(own_bus: Bus) -> None:
    """The connection comes back in the very moment of the stop: the wake-up does not swallow the stop."""
    looked = asyncio.Event()
    keeper = StreamKeeper(own_bus, contract(own_bus), on_poll=lambda *_: looked.set())
    await keeper.start()
    await asyncio.wait_for(looked.wait(), 10)
    keeper.poll_soon()
    await asyncio.wait_for(keeper.stop(), 5)


async def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    """Whatever nats-py makes of it: who asked and was told to end does not go on."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask() -> str:
        with translated("somebody"):
            return await asyncio.wait_for(answer, 5)

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    answer.set_result("yes")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

"""The table of the contract, on a server of its own."""

import json

from router.bus import fleet
from router.bus.connection import Bus
from router.bus.keeper import StreamKeeper
from router.bus.stream_specs import StreamSpec
from router.bus.streams import Streams

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
    await keeper.look()
    await keeper.look()
    assert keeper.covered == {}
    assert keeper.ensured.differences == ()
    assert keeper.ready

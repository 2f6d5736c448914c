"""The table of the contract, on a server of its own."""

import json

from router.bus import fleet
from router.bus.connection import Bus
from router.bus.fleet import FleetShape
from router.bus.keeper import REQUEST_SUBJECTS, StreamKeeper
from router.bus.streams import Streams

CONTRACT = {
    "ASSIGN": (["caf.exec.assign.v1", "caf.exec.gpu.v1"], 3600, 3600),
    "ASSIGNED": (["caf.exec.assigned.v1"], 86400, 3600),
    "ACK": (["caf.exec.assign.v1.ack"], 3600, 120),
    "RESULT": (["caf.exec.result.v1"], 3600, 120),
    "USAGE": (["beamline.usage.v1.metered"], 604800, 3600),
    "ALERT": (["beamline.alert.v1.*"], 604800, 3600),
    "DLQ": (["caf.exec.result.v1.dlq", "caf.exec.assign.v1.ack.dlq"], 1209600, 3600),
}


async def test_the_whole_table_is_created_as_the_contract_says(own_bus: Bus) -> None:
    """Every stream has the subjects, ages and windows of CONTRACTS §1, and the three consumers are there."""
    shape = FleetShape()
    streams = Streams(own_bus, fleet.streams(shape, assign_subjects=["caf.exec.gpu.v1"]), fleet.consumers(shape))
    ensured = await streams.ensure()
    assert ensured.created == (*CONTRACT, "ASSIGN/workers", "ACK/router-fleet-acks", "RESULT/router-fleet-results")
    for name, (subjects, age_s, dedup_s) in CONTRACT.items():
        config = json.loads((await own_bus.request(f"$JS.API.STREAM.INFO.{name}", b"")).data)["config"]
        assert (config["subjects"], config["max_age"], config["duplicate_window"]) == (
            subjects,
            age_s * 1_000_000_000,
            dedup_s * 1_000_000_000,
        )


async def test_no_stream_of_ours_lies_over_a_request_subject(own_bus: Bus) -> None:
    """The keeper finds the whole fleet in order on a fresh server, twice, so that nothing differs from itself."""
    shape = FleetShape()
    keeper = StreamKeeper(own_bus, Streams(own_bus, fleet.streams(shape), fleet.consumers(shape)))
    await keeper.look()
    await keeper.look()
    assert keeper.covered == {}
    assert keeper.ensured.differences == ()
    assert keeper.ready
    assert "beamline.router.v1.decide" in REQUEST_SUBJECTS

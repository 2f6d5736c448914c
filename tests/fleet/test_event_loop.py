"""Nothing that a serving pod does blocks its event loop."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import orjson

from tests.fleet.conftest import Own
from tests.fleet.foreign import BACKPRESSURE, GET_DECISION, RESULT, Foreign, Worker, task
from tests.fleet.harness import PLAIN, STATE, Fleet, until

ACME = {"acme": {"default": PLAIN}}
WATCHED = Path(__file__).parent / "watched.py"


async def test_no_file_name_or_process_is_waited_for_in_the_event_loop(own: Own, tmp_path: Path) -> None:
    """Decides in every way, results, policies, a changed state file, exports, outages: files, look-ups of names,
    imports and processes are other threads' work. Found by the interpreter's own audit events."""
    blocks = tmp_path / "blocks"
    export = tmp_path / "export"
    fleet, caller = await own(pods=0, policies=ACME, env={"ROUTER_AUDIT_EXPORT_DIR": str(export)})
    pod = fleet.pod("watched", WATCHED_BLOCKS=str(blocks))
    pod.program = (str(WATCHED),)
    await pod.start()
    assert pod.process is not None
    pod.process.send_signal(signal.SIGUSR1)
    await until(lambda: "armed" in blocks.read_text(), 5, "the watch is armed")
    await _everything(fleet, caller)
    assert await pod.stop() == 0
    found: list[dict[str, Any]] = [json.loads(line) for line in blocks.read_text().splitlines() if line != "armed"]
    # What the kernel tells of this process (/metrics) is memory, not a disk.
    assert [x for x in found if "/proc/self/" not in x["args"]] == []


async def _everything(fleet: Fleet, caller: Foreign) -> None:
    async with Foreign(fleet.nats.url) as other:
        await Worker(other).start()
        bodies = [task("acme", push_assignment=True), task("acme", options={"explain": True}), task("nobody"), {}]
        await caller.all(bodies * 5)
        tenant = await fleet.tenant()
        await caller.all([task(tenant) for _ in range(5)])
        for subject in (BACKPRESSURE, GET_DECISION, "beamline.router.v1.admin.get_circuit_breaker_states"):
            await caller.ask({"tenant_id": "acme", "request_id": "x"}, subject=subject)
        await caller.tell(RESULT, {"no": "result"})
        fleet.state_path.write_bytes(orjson.dumps(STATE | {"current_cp": "CP1-LC"}))
        pod = fleet.pods[0]
        await until(lambda: pod.logged("gate.closed"), 5, "the gate has closed")
        fleet.state_path.write_bytes(orjson.dumps(STATE))
        await until(lambda: _exported(fleet), 20, "audit entries were exported")
        for path in ("/livez", "/readyz", "/metrics", "/nothing"):
            await pod.http(path)
        await asyncio.to_thread(fleet.valkey.kill)
        await caller.ask(task("acme"))
        await asyncio.to_thread(fleet.valkey.start)
        await asyncio.to_thread(fleet.nats.kill)
        await asyncio.to_thread(fleet.nats.start)
        await until(lambda: caller.client.is_connected, 10, "the caller is back")

        async def decides() -> bool:
            try:
                reply = await caller.ask(task("acme"), within_s=1)
                # Without data: the server's word that nobody listens yet.
                return bool(reply.data) and reply.ok
            except TimeoutError:
                return False

        await until(decides, 15, "decisions again")


async def _exported(fleet: Fleet) -> bool:
    return await fleet.total("router_audit_exported_total") > 0

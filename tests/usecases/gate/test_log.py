"""Turns of the gate are recorded in order, whatever the store does."""

import asyncio
from collections.abc import Mapping

from router.domain.audit.records import Actor
from router.domain.gate import Fault
from router.domain.tasks.task import Action
from router.errors import StoreUnavailable
from router.usecases.gate.gate import GateState
from router.usecases.gate.log import MAX_WAITING, GateLog

OPEN = GateState("CP2-LC", None, None, "current_cp is CP2-LC", 1)


def closed(at: int) -> GateState:
    """A turn to the baseline at that time."""
    return GateState(None, None, Fault.MISSING, "there is no file", at)


class Acts:
    """A log that is away for as many calls as told. `full` is set once it holds `wanted` records."""

    def __init__(self, wanted: int, away: int = 0) -> None:
        self.found: list[tuple[str | None, Mapping[str, str | int | bool]]] = []
        self.full = asyncio.Event()
        self._wanted, self._away = wanted, away

    async def record(
        self,
        action: Action,
        by: Actor,
        resource_type: str,
        resource_id: str | None,
        details: Mapping[str, str | int | bool],
    ) -> None:
        """Keep one."""
        assert (action, resource_type) == (Action.GATE_CHANGED, "gate")
        if self._away:
            self._away -= 1
            raise StoreUnavailable("away")
        self.found.append((resource_id, details))
        if len(self.found) == self._wanted:
            self.full.set()


async def recorded(acts: Acts, *states: GateState) -> list[int]:
    """The times of the turns that were recorded."""
    log = GateLog(acts, "pod-1", retry_s=0.001)
    for state in states:
        log.changed(state)
    task = asyncio.create_task(log.run())
    await asyncio.wait_for(acts.full.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [int(details["seen_at_ms"]) for _, details in acts.found]


async def test_turns_wait_while_the_store_is_away() -> None:
    """Each once, oldest first."""
    acts = Acts(2, away=3)
    assert await recorded(acts, closed(1), OPEN) == [1, 1]
    assert [(name, d["open"], d.get("reason")) for name, d in acts.found] == [
        (None, False, "missing"),
        ("CP2-LC", True, None),
    ]


async def test_a_start_with_all_features_is_no_turn() -> None:
    """What follows it is."""
    assert await recorded(Acts(1), OPEN, closed(7)) == [7]


async def test_only_the_newest_wait() -> None:
    """A gate that turns on and on while the store is away costs no memory."""
    times = await recorded(Acts(MAX_WAITING), *(closed(n) for n in range(200)))
    assert times == list(range(200 - MAX_WAITING, 200))

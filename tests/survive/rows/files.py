"""Faults of the mounted files."""

import asyncio

import orjson

from tests.fleet.harness import STATE
from tests.survive.arena import Arena
from tests.survive.row import AGAIN, Row

_GATE = "routerbaseline"


async def _half_written(ground: Arena) -> None:
    whole = ground.fleet.state_path.read_bytes()
    ground.fleet.state_path.write_bytes(whole[: len(whole) // 2])
    await asyncio.sleep(3)
    ground.fleet.state_path.write_bytes(whole)


async def _vanished(ground: Arena) -> None:
    whole = ground.fleet.state_path.read_bytes()
    ground.fleet.state_path.unlink()
    await asyncio.sleep(3)
    ground.fleet.state_path.write_bytes(whole)


async def _older(ground: Arena) -> None:
    older = STATE | {"current_cp": "CP1-LC"}
    ground.fleet.state_path.write_bytes(orjson.dumps(older))
    await asyncio.sleep(3)
    ground.fleet.state_path.write_bytes(orjson.dumps(STATE))


async def _policy_broken(ground: Arena) -> None:
    path = ground.fleet.policy_dir / "leased" / "default.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    await asyncio.sleep(4)
    path.write_bytes(whole)


ROWS = (
    Row(
        name="files.cp_half_written",
        fault="the CP file half-written for 3 s",
        promise="the last good value holds for the grace time; no caller notices",
        see=_GATE,
        act=_half_written,
        served=1.0,
        short=True,
    ),
    Row(
        name="files.cp_vanished",
        fault="the CP file gone for 3 s",
        promise="the last good value holds for the grace time; no caller notices",
        see=_GATE,
        act=_vanished,
        served=1.0,
    ),
    Row(
        name="files.cp_older",
        fault="a CP file of CP1 for 3 s",
        promise="in force at once: baseline, and pushed tasks are `unauthorized`",
        see=_GATE,
        act=_older,
        refused=AGAIN | {"unauthorized"},
    ),
    Row(
        name="files.policy_broken",
        fault="a policy file half-written for 4 s",
        promise="the last good policy holds; no caller notices",
        see="routerpolicyunreadable",
        act=_policy_broken,
        served=1.0,
    ),
)

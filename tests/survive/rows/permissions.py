"""Permissions in NATS that are taken away and given back by a reload."""

import asyncio
from pathlib import Path

from tests.fleet.foreign import DECIDE
from tests.fleet.harness import until
from tests.servers import NatsProcess
from tests.survive.arena import Arena
from tests.survive.row import Act, Row, Setup

_LOGIN = {"ROUTER_NATS_USER": "router", "ROUTER_NATS_PASSWORD": "pw"}


def _users(publish: str = "none", subscribe: str = "none") -> str:
    """Pods are `router`, who may do everything but this; who names no user may do everything."""
    denied = f'publish: {{ deny: ["{publish}"] }}, subscribe: {{ deny: ["{subscribe}"] }}'
    return (
        f"accounts {{ A {{ jetstream: enabled, users: [{{user: router, password: pw, permissions: {{ {denied} }} }}, "
        "{user: all, password: all}] } }\nno_auth_user: all"
    )


def _taken(publish: str, subscribe: str, part: str) -> Act:
    """Without the permission every pod says so; then it is given back."""

    async def act(ground: Arena) -> None:
        async def said() -> bool:
            return all([part in str((await pod.readyz())[1]) for pod in ground.pods])

        await asyncio.to_thread(ground.fleet.nats.reload, _users(publish, subscribe))
        await ground.expect(f"readyz of every pod says `{part}`", until(said, 30, "said"))
        await asyncio.to_thread(ground.fleet.nats.reload, _users())

    return act


def _server(folder: Path) -> NatsProcess:
    return NatsProcess(folder, extra=_users())


_SETUP = Setup(nats=_server, env=_LOGIN)

ROWS = (
    Row(
        name="nats.decide_forbidden",
        fault="pods may no longer subscribe to decide requests, until a reload",
        promise="not ready, with the subject as the reason; ready within 15 s of the permission's return",
        see="the-account-of-a-fleet-on-nats",
        act=_taken("none", DECIDE, DECIDE),
        recover_s=15.0,
        worst_s=3.0,
        setup=_SETUP,
    ),
    Row(
        name="nats.results_forbidden",
        fault="pods may no longer acknowledge or pull results, until a reload",
        promise="decisions continue; the part is off until 15 s after the permission's return; nothing is lost",
        see="routerpoddegraded",
        act=_taken("$JS.API.CONSUMER.MSG.NEXT.RESULT.>", "none", "results"),
        recover_s=16.0,
        setup=_SETUP,
    ),
)

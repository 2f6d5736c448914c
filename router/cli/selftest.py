"""`router selftest`."""

from typing import TYPE_CHECKING, Annotated

import typer

from router.cli.shared.exits import Exit
from router.cli.shared.output import print_json, print_table
from router.cli.shared.target import JsonOption, NatsOption, RedisOption

if TYPE_CHECKING:
    from router.selftest.check import Check
    from router.settings import Settings


def selftest(
    pods: Annotated[
        int, typer.Option(min=1, help="Expected replicas; with 1, answers from several pods are not checked.")
    ] = 2,
    tenant: Annotated[
        str | None, typer.Option(help="The throw-away tenant, which must be unused. Default: a random name.")
    ] = None,
    allow_volatile: Annotated[
        bool, typer.Option("--allow-volatile", help="Accept a Redis without an append-only file.")
    ] = False,
    json: JsonOption = False,
    nats: NatsOption = None,
    redis: RedisOption = None,
) -> None:
    """Check a running fleet and its servers: do the pods share one counter, is Redis safe, are the streams right?

    Uses a tenant of its own and removes it. Exit code 1: a check failed.
    """
    import asyncio
    from secrets import token_hex

    from router.cli.shared.target import settings_for
    from router.usecases.policies.publish import check_ids

    name = tenant or f"selftest-{token_hex(6)}"
    check_ids(name)
    settings = settings_for(nats=nats, redis=redis)
    checks = asyncio.run(_run(settings, name, pods, allow_volatile=allow_volatile))
    if json:
        print_json([{"check": c.name, "verdict": c.verdict, "seen": c.seen} for c in checks])
    else:
        print_table(("check", "verdict", "seen"), [(c.name, c.verdict, c.seen) for c in checks], whole=("verdict",))
    raise typer.Exit(Exit.NEGATIVE if any(c.verdict == "failed" for c in checks) else Exit.OK)


async def _run(s: "Settings", tenant: str, pods: int, *, allow_volatile: bool) -> "list[Check]":
    from router.app.adapter_settings import durable_consumers, stream_specs
    from router.bus.streams.registry import Streams
    from router.cli.shared.bus import open_bus
    from router.cli.shared.connections import open_store
    from router.selftest.fleet import FleetChecks
    from router.selftest.nats import NatsChecks
    from router.selftest.redis import RedisChecks
    from router.selftest.run import run
    from router.selftest.sentinels import SentinelChecks
    from router.store.servers.facts import RedisServers
    from router.store.servers.sentinels import SentinelPrimary

    async with open_store(s) as store, open_bus(s) as bus:
        servers = RedisServers(store.nodes, stated_policy=s.redis_maxmemory_policy, allow_eviction=s.allow_eviction)
        redis = RedisChecks(store.nodes, servers, allow_volatile=allow_volatile)
        nats = NatsChecks(bus, Streams(bus, stream_specs(s), durable_consumers(s)))
        fleet = FleetChecks(bus, store.nodes, store.keys, tenant=tenant, pods=pods)
        sentinels = None
        if isinstance(store.nodes, SentinelPrimary):
            sentinels = SentinelChecks(store.nodes.sentinels, wait_replicas=s.wait_replicas)
        return await run(redis, nats, fleet, sentinels)

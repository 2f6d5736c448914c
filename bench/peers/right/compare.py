"""Runs the scenario against every contender, one after the other, and says what came out as a table."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from msgspec import Struct

from bench.peers.install import NotInstalled, Peers, version
from bench.peers.right.limiters import LimiterProcesses
from bench.peers.right.litellm import Proxies
from bench.peers.right.ours import Pods
from bench.peers.right.scenario import Contender, Scenario, Size, Verdict
from bench.processes import BenchFailed, Placement

OURS = "this router"
CONTENDERS = (OURS, "LiteLLM proxy", "limits", "throttled-py")


class Row(Struct, frozen=True):
    """One contender's outcome, or why there is none."""

    name: str
    settings: str
    verdict: Verdict | None = None
    not_run: str = ""


def run(name: str, peers: Peers | NotInstalled, folder: Path, size: Size) -> Row:
    """Run the scenario against one contender, in a folder of its own."""
    settings = described(name)
    if isinstance(peers, NotInstalled) and name != OURS:
        return Row(name, settings, not_run=str(peers))
    folder.mkdir()
    try:
        return Row(name, settings, asyncio.run(_verdict(_opened(name, peers, folder, size), size)))
    except (BenchFailed, OSError) as fault:
        return Row(name, settings, not_run=str(fault).strip().splitlines()[-1][:200])


async def _verdict(contender: Callable[[], AbstractAsyncContextManager[Contender]], size: Size) -> Verdict:
    async with contender() as opened:
        return await Scenario(opened, size).run()


def _opened(
    name: str, peers: Peers | NotInstalled, folder: Path, size: Size
) -> Callable[[], AbstractAsyncContextManager[Contender]]:
    placement = Placement.split()
    if name == OURS:
        return lambda: Pods(folder, placement, size)
    assert isinstance(peers, Peers)
    if name == "LiteLLM proxy":
        return lambda: Proxies(peers, folder, placement, size)
    return lambda: LimiterProcesses(name, peers, folder, placement, size)


def described(name: str) -> str:
    """Version and settings."""
    match name:
        case "this router":
            return "two pods; limits of requests and cost; `options.meter`"
        case "LiteLLM proxy":
            return (
                f"{version('litellm')}, two proxies of one worker; keys with `rpm_limit` or `max_budget` "
                "by custom_auth, without PostgreSQL; bills: calls of `async_log_success_event`"
            )
        case "limits":
            return f"{version('limits')}, two processes, SlidingWindowCounter; a budget is a limit with `cost=2`"
        case _:
            return f"{version('throttled-py')}, two processes, sliding_window; a budget is a limit with `cost=2`"


def table(rows: list[Row], size: Size) -> str:
    """The outcomes as Markdown."""
    head = (
        f"| who | admitted above {size.limit} | spent above {size.budget_cents / 100:.2f} USD | billed twice "
        "| not billed | unanswered | admitted | how it was run |\n|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *map(_line, rows)])


def _line(row: Row) -> str:
    v = row.verdict
    if v is None:
        return f"| {row.name} | not run: {row.not_run} | | | | | | {row.settings} |"
    bills = ["no bills" if count is None else str(count) for count in (v.billed_twice, v.not_billed)]
    spent = f"{v.spent_above_cents / 100:.2f} USD" if v.spent_above_cents else "0"
    cells = [row.name, v.admitted_above, spent, *bills, v.unanswered, v.admitted, row.settings]
    return "| " + " | ".join(map(str, cells)) + " |"

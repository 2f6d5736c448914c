"""`python -m tests.chaos --seed N --faults N`: a fault campaign on a fleet of its own; exit code 1: a bar is missed.

Interrupted (Ctrl-C, SIGTERM) it ends all that it has started; exit code 130 or 143.

With --everysec the same seed runs once more on a Redis with appendfsync everysec, reported beside, without the bar.
The folder with all data and logs is kept when a bar is missed, or by --folder.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

from tests.chaos.campaign import Campaign, Run
from tests.chaos.report import table, title


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: a fresh one, which is printed")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=20.0, help="new tasks a second")
    parser.add_argument("--everysec", action="store_true", help="the same seed with appendfsync everysec beside it")
    parser.add_argument("--folder", type=Path, default=None, help="kept; must not exist")
    wanted = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if wanted.seed is None else wanted.seed
    folder: Path = wanted.folder or Path(tempfile.mkdtemp(prefix="router-chaos-"))
    runs: list[Run] = []
    for fsync in ("always", "everysec") if wanted.everysec else ("always",):
        campaign = Campaign(folder / fsync, seed=seed, faults=wanted.faults, rate=wanted.rate, fsync=fsync, say=_say)
        _say(f"{title(campaign.run_)}; data and logs are in {folder / fsync}")
        try:
            runs.append(asyncio.run(_until_interrupted(campaign.run())))
        except Interrupted as interrupted:
            _say(f"interrupted: everything that it had started has ended; data and logs are in {folder}")
            return interrupted.exit_code
        _say(table(runs))
    if not runs[0].held:
        print(f"a bar is missed with --seed {seed}; data and logs are in {folder}")
        return 1
    if wanted.folder is None:
        shutil.rmtree(folder)
    return 0


T = TypeVar("T")


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


async def _until_interrupted(work: Coroutine[None, None, T]) -> T:
    """What `work` comes to; a signal cancels it, once, and waits until it has put everything away.

    :raises Interrupted: a signal came before the end.
    """
    loop, came = asyncio.get_running_loop(), list[int]()
    task = asyncio.ensure_future(work)

    def interrupt(number: int) -> None:
        if not came:
            _say("interrupted: ending everything that was started …")
            task.cancel()
        came.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):  # a shell that starts it in the background has SIGINT ignored
        loop.add_signal_handler(number, interrupt, number)
    await asyncio.wait([task])
    if came:
        raise Interrupted(came[0])
    return task.result()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

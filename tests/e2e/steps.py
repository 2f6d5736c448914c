"""Steps that say what they saw, and commands that say why they failed."""

import asyncio
import inspect
import shlex
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Failed(Exception):
    """A step did not come out as it has to."""


def sh(command: str, *, env: dict[str, str] | None = None, stdin: str | None = None, within_s: float = 600) -> str:
    """Run a command; its standard output.

    :raises Failed: it ended with another code than 0; the message has its output.
    """
    done = subprocess.run(
        shlex.split(command),
        cwd=ROOT,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode:
        raise Failed(f"$ {command}\nexit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def must(holds: object, otherwise: str) -> None:
    """:raises Failed: it does not hold."""
    if not holds:
        raise Failed(otherwise)


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """`with step("scale") as saw: … saw("4 pods")` prints one line with its time."""
    started = time.monotonic()
    seen: list[str] = []
    try:
        yield seen.append
    except BaseException:
        print(f"FAILED {name} after {time.monotonic() - started:.1f} s", flush=True)
        raise
    print(f"ok {time.monotonic() - started:6.1f} s  {name}{': ' if seen else ''}{'; '.join(seen)}", flush=True)


async def until(look: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of `look`, asked twice a second: an engine has no event to wait for.

    :raises Failed: not within the time.
    """
    give_up = time.monotonic() + within_s
    while True:
        found = look()
        value = await found if inspect.isawaitable(found) else found
        if value:
            return value
        must(time.monotonic() < give_up, f"{what}: not within {within_s:g} s")
        await asyncio.sleep(0.5)


def main(work: Callable[[], Awaitable[None]], tidy: Callable[[], None]) -> None:
    """Run it, tidy up whatever came of it, and end with 0 or 1."""
    code = 0
    try:
        asyncio.run(_run(work))
    except Failed as failed:
        print(failed, file=sys.stderr, flush=True)
        code = 1
    finally:
        tidy()
    print("passed" if code == 0 else "failed", flush=True)
    sys.exit(code)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()

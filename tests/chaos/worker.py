"""`python -m tests.chaos.worker NATS_URL NAME`: a worker that does what each task's payload plans for this attempt.

{"plan": [[act, ms], …]}: attempt n waits ms and does the n-th act (the last one again when there are no more):
ok, error (counts against the provider), cancelled, reject, bug.
"""

import asyncio
import logging
import sys

import msgspec

from router.worker import Done, Failed, Job, Rejected, Worker

JOB_TYPE = "chaos"


class Planned(msgspec.Struct):
    """The payload."""

    plan: list[tuple[str, int]]


async def perform(job: Job[Planned]) -> Done:
    """The act of this attempt."""
    act, ms = job.payload.plan[min(job.attempt, len(job.payload.plan)) - 1]
    await asyncio.sleep(ms / 1000)
    if act == "error":
        raise Failed("SERVER_ERROR", "planned")
    if act == "cancelled":
        raise Failed("CANCELLED", "planned", status="cancelled")
    if act == "reject":
        raise Rejected("planned")
    if act == "bug":
        raise ValueError("planned")
    return Done({"attempt": job.attempt}, cost=0.002, tokens=7)


def main(url: str, name: str) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    connect = {"reconnect_time_wait": 0.1, "connect_timeout": 1, "ping_interval": 2}
    worker = Worker(url, name=name, concurrency=64, drain_s=2.0, connect=connect)
    worker.job(JOB_TYPE, Planned)(perform)
    worker.run_until_signal()


if __name__ == "__main__":
    main(*sys.argv[1:3])

"""What one would write first: a task per message, a pooled redis-py client, the same script with one row a call.

It shares everything that is not the point (decoding, planning, packing, encoding, the script) with the real pod, and
does less than it: no policy lookup in Redis, no dispatch, no metrics, no deadlines.

`python -m bench.naive NATS_URL REDIS_PORT SUBJECT`
"""

import asyncio
import sys

import nats
from nats.aio.msg import Msg
from redis.asyncio import BlockingConnectionPool, Redis

from bench.processes import HOST
from bench.rows import Calls, stored_policies
from router.domain.decide.answers import answer
from router.domain.decide.outcome import Outcome
from router.domain.decide.plan import Plan, plan
from router.domain.decide.request import DecideRequest
from router.store.decide.replies import HEAD, outcome
from router.wire.reply import encode
from router.wire.request.decide import decode

_CONNECTIONS = 64  # more of them only cost: one Redis serves them one at a time


class NaivePod:
    """Answers each request in a task of its own."""

    def __init__(self, redis_port: int) -> None:
        pool = BlockingConnectionPool(host=HOST, port=redis_port, max_connections=_CONNECTIONS, timeout=10)
        self._redis = Redis(connection_pool=pool)
        self._calls = Calls()
        self._stored = stored_policies()
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Load the script."""
        await self._redis.execute_command(*self._calls.script.load)  # type: ignore[no-untyped-call]

    async def on_message(self, msg: Msg) -> None:
        """Start the task of a message."""
        task = asyncio.create_task(self._answer(msg))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        request = decode(msg.data, msg.headers, None)
        if not isinstance(request, DecideRequest):
            await msg.respond(
                encode(request.refused, request_id=request.request_id, trace_id=request.trace_id, legacy_codes=False)
            )
            return
        planned = plan(request, self._stored[request.tenant_id])
        found = answer(await self._decide(request, planned), request, planned, explain=False)
        trace_id = request.correlation.trace_id
        await msg.respond(encode(found, request_id=request.request_id, trace_id=trace_id, legacy_codes=False))

    async def _decide(self, request: DecideRequest, planned: Plan) -> Outcome:
        keys, arguments, decision = self._calls.single(request, planned)
        reply = await self._redis.execute_command(*self._calls.script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
        row = reply[3]
        _nonce, code, _stamp = HEAD.unpack_from(row)
        return outcome(row, code, decision)


async def main(url: str, redis_port: str, subject: str) -> None:
    """Serve until killed."""
    pod = NaivePod(int(redis_port))
    await pod.load()
    client = await nats.connect(url)
    await client.subscribe(subject, queue="router", cb=pod.on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    print("LISTENING", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

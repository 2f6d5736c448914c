"""A stock nats-py responder that answers with the request: what NATS request/reply through Python can do at best.

`python -m bench.echo NATS_URL SUBJECT`
"""

import asyncio
import sys

import nats
from nats.aio.msg import Msg


async def main(url: str, subject: str) -> None:
    """Serve until killed."""
    client = await nats.connect(url)

    async def answer(msg: Msg) -> None:
        await msg.respond(msg.data)

    await client.subscribe(subject, cb=answer, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    print("LISTENING", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

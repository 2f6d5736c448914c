"""Floods beside a victim: a tenant that asks steadily, and somebody else who asks far more than the pods can serve.

`Floods` has the generators (bench/loadgen.c); a scenario runs one flood and one victim at a time:

    floods = Floods(fleet, tmp_path)
    capacity = await floods.capacity("flooder")
    flood, victim = Source.of_tenant("flooder"), Source.of_tenant("victim")
    found = await floods.beside(flood, 2 * capacity, victim, 40, requests=1000)
    assert found.victim.refused == {} and found.victim.p99_ms <= 100 and found.flood.silent_after_s <= 1
"""

import asyncio
import struct
import time
from pathlib import Path
from typing import Any, Self

import msgspec
import orjson
from msgspec import Struct

from bench.generator import Generator
from bench.measure import LoadReport
from tests.fleet.foreign import DECIDE
from tests.fleet.harness import Fleet

ID = "0" * 16
WARM_S = 1.0


class Source(Struct, frozen=True):
    """What a generator sends: a body whose `ID` becomes a new id in each request."""

    name: str
    body: bytes
    subject: str = DECIDE

    @classmethod
    def of_tenant(cls, tenant: str, **more: Any) -> Self:
        """Requests of one tenant."""
        return cls(tenant, orjson.dumps(_request(tenant, ID) | more))

    @classmethod
    def of_strangers(cls) -> Self:
        """Each request of another tenant, none of which exists."""
        return cls("strangers", orjson.dumps(_request(f"nobody-{ID}", "r")))


def _request(tenant: str, request_id: str) -> dict[str, Any]:
    return {"version": "1", "tenant_id": tenant, "request_id": request_id, "task": {"type": "chat", "payload": {}}}


class Told(Struct, frozen=True):
    """What a generator found. `refused`: by error code; `silent_after_s`: from its last request to its last answer."""

    sent: int
    answered: int
    refused: dict[str, int]
    lost: int
    doubled: int
    p50_ms: float
    p99_ms: float
    rate: float
    silent_after_s: float

    @property
    def line(self) -> str:
        """The figures for people."""
        return (
            f"{self.sent:,} sent, {self.answered:,} in the window at {self.rate:,.0f}/s, refused {self.refused}, "
            f"lost {self.lost}, p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, "
            f"last answer {self.silent_after_s:.2f} s after"
        )


class Beside(Struct, frozen=True):
    """A flood and its victim."""

    flood: Told
    victim: Told

    @property
    def line(self) -> str:
        """The figures for people."""
        return f"victim: {self.victim.line}\nflood:  {self.flood.line}"


class Floods:
    """The generators for one fleet; `folder` takes what they need."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self._generators: dict[Source, Generator] = {}

    def _generator(self, source: Source) -> Generator:
        if source not in self._generators:
            folder = self._folder / f"source-{len(self._generators)}"
            folder.mkdir()
            templates = folder / "templates"
            body = source.body
            templates.write_bytes(struct.pack("<II", len(body), body.index(ID.encode())) + body)
            self._generators[source] = Generator.build(folder, self._fleet.nats.port, templates)
        return self._generators[source]

    async def capacity(self, tenant: str, *, outstanding: int = 200, seconds: float = 3.0) -> float:
        """Requests of the tenant that the pods decide per second, when it is alone and waits for its answers."""
        source = Source.of_tenant(tenant)
        command = self._generator(source).closed(source.subject, outstanding, WARM_S, seconds)
        return (await _run(command, WARM_S + seconds)).rate

    async def open(self, source: Source, rate: float, seconds: float, warm_s: float = WARM_S) -> Told:
        """Send at this rate, whatever comes back."""
        command = self._generator(source).open(source.subject, max(1, round(rate)), warm_s, seconds)
        return await _run(command, warm_s + seconds)

    async def beside(self, flood: Source, rate: float, victim: Source, victim_rate: float, *, requests: int) -> Beside:
        """The flood lasts for as long as the victim sends its requests, and a second more on both sides."""
        seconds = requests / victim_rate
        flooding = asyncio.create_task(self.open(flood, rate, seconds + 2))
        await asyncio.sleep(WARM_S + 1)  # the flood has begun: its generator counts from its warm-up on
        asked = await self.open(victim, victim_rate, seconds, 0.0)
        return Beside(await flooding, asked)


async def _run(command: list[str], seconds: float) -> Told:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds + 60):
            assert (await process.stdout.readline()).strip() == b"START", (await process.stderr.read()).decode()
            assert (await process.stdout.readline()).strip() == b"END"
            ended = time.monotonic()
            said = await process.stdout.readline()
            silent = time.monotonic() - ended
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said, (await process.stderr.read()).decode()
    report = msgspec.json.decode(said, type=LoadReport)
    sent = orjson.loads(said)["sent"]
    return Told(
        sent=sent,
        answered=report.answered,
        refused=dict(report.errors),
        lost=report.lost,
        doubled=report.duplicates,
        p50_ms=report.latency_us.p50 / 1000,
        p99_ms=report.latency_us.p99 / 1000,
        rate=report.rate,
        silent_after_s=silent,
    )

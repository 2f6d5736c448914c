"""The bench's own instruments: a load generator that miscounts would make every figure a lie."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nats.aio.msg import Msg
from redis import Redis

from bench.bars import bars, best_run
from bench.generator import Generator
from bench.measure import LoadReport, Measurement, measure
from bench.processes import BenchFailed, server_binary, server_version, start_valkey
from bench.pyclient import read_templates
from bench.rounds import Record
from bench.rows import Calls, least_script
from bench.store import memory
from bench.store.memory import KeyCost
from bench.workload import policy, request, requests, write_templates
from router.domain.decide.request import DecideRequest
from router.domain.policy.document import parse
from router.store.decisions import decide_script
from router.wire.request.decide import decode
from tests.nats_client import connect
from tests.servers import ValkeyProcess

SUBJECT = "bench.test"


@pytest.fixture
async def responder(nats_url: str) -> AsyncIterator[None]:
    """Refuses every tenth request; the others are answered well, with headers as the router's are."""
    client = await connect(nats_url)
    seen = 0

    async def answer(msg: Msg) -> None:
        nonlocal seen
        seen += 1
        body = b'{"ok":false,"error":{"code":"quota_exceeded"}}' if seen % 10 == 0 else b'{"ok":true}'
        await client.publish(msg.reply, body, headers={"router-pod": "test"})

    await client.subscribe(SUBJECT, cb=answer)
    await client.flush()
    yield
    await client.close()


def generators(folder: Path, nats_url: str) -> list[Generator]:
    """The compiled generator (where there is a compiler) and its Python stand-in."""
    templates = folder / "templates.bin"
    write_templates(templates)
    port = urlsplit(nats_url).port or 0
    found = [Generator([sys.executable, "-m", "bench.pyclient"], port, templates, native=False)]
    built = Generator.build(folder, port, templates)
    return [*found, built] if built.native else found


async def load(command: list[str]) -> LoadReport:
    """Run a load command beside the responder of this event loop."""
    return (await asyncio.to_thread(measure, command, "any", {}, None)).load


async def test_closed_loop_counts_good_and_bad_answers(tmp_path: Path, nats_url: str, responder: None) -> None:
    """Every answer in the window is counted once, refusals under their code, and none is lost."""
    for generator in generators(tmp_path, nats_url):
        report = await load(generator.closed(SUBJECT, 8, 0.1, 0.4))
        assert report.answered == report.ok + report.errors["quota_exceeded"] > 50
        assert abs(report.errors["quota_exceeded"] - report.answered / 10) <= 2
        assert (report.lost, report.duplicates) == (0, 0)


async def test_open_loop_keeps_its_rate(tmp_path: Path, nats_url: str, responder: None) -> None:
    """An open loop offers the asked rate: one sample for each moment that was due in the window."""
    for generator in generators(tmp_path, nats_url):
        report = await load(generator.open(SUBJECT, 500, 0.1, 0.4))
        assert abs(report.ok + report.errors["quota_exceeded"] - 200) <= 2
        assert report.latency_us.p99 >= report.latency_us.p50 > 0


async def test_no_responder_is_an_error(tmp_path: Path, nats_url: str) -> None:
    """The server's 503 is counted as a bad answer, not as a decision."""
    for generator in generators(tmp_path, nats_url):
        report = await load(generator.open("bench.nobody", 100, 0.05, 0.2))
        assert report.ok == 0
        assert sum(report.errors.values()) == pytest.approx(20, abs=2)


def test_request_ids_never_repeat(tmp_path: Path) -> None:
    """Each run of a generator starts at ids that no other run reaches."""
    generator = Generator(["x"], 1, tmp_path, native=True)
    assert generator.next_id_base() + (1 << 40) == generator.next_id_base()


def test_templates_are_requests_with_a_hole(tmp_path: Path) -> None:
    """What the template file holds is what the wire room reads, whatever id fills the hole."""
    write_templates(tmp_path / "t")
    before, after = read_templates(tmp_path / "t")[7]
    decoded = decode(before + b"00000000deadbeef" + after, None, None)
    assert isinstance(decoded, DecideRequest)
    assert decoded.request_id == "00000000deadbeef"


def test_workload_is_full_featured() -> None:
    """The policy compiles, with three limits, pins, a breaker and four providers; a request brings what they need."""
    compiled = parse(policy()).policy
    assert (len(compiled.limits), len(compiled.providers)) == (3, 4)
    assert compiled.sticky is not None
    assert compiled.breaker is not None
    decoded = decode(request(random.Random(1), "r"), None, None)  # noqa: S311 (not a secret)
    assert isinstance(decoded, DecideRequest)
    assert decoded.user_id
    assert decoded.options.estimate_tokens
    assert decoded.context["session_id"]


def test_workload_is_the_same_every_time() -> None:
    """Two runs ask the same questions."""
    assert requests(5, 1) == requests(5, 1)


def record(series: str, mode: str, amount: int, rate: float, **more: int) -> Record:
    """A record with a rate and nothing else."""
    report = LoadReport(int(rate), 1, rate, **more)  # type: ignore[arg-type]  # counters only
    return Record(series, mode, amount, 1, Measurement(report, {"pod": 10.0, "redis": 10.0}))


def test_bars_compare_within_a_round() -> None:
    """The ratios are of the same round, and a single lost answer fails the run."""
    records = [
        record("pod", "closed", 256, 400),
        record("naive", "closed", 256, 100),
        record("script", "script", 90, 1000),
        record("pod", "open", 5000, 5000),
    ]
    assert [b.value for b in bars(records)[:2]] == [4, 40]
    assert all(b.holds for b in bars(records))
    assert not bars([*records, record("pod", "open", 1000, 1000, lost=1)])[-1].holds


def test_overload_is_answered_rightly_but_not_quickly() -> None:
    """`service_overloaded` breaks no promise, but its run is not the best one; any other error breaks it."""
    main = [
        record("pod", "closed", 256, 400),
        record("naive", "closed", 256, 100),
        record("script", "script", 90, 1000),
    ]
    shed = record("pod", "open", 5000, 5000, errors={"service_overloaded": 3})  # type: ignore[arg-type]
    wrong = record("pod", "open", 5000, 5000, errors={"internal": 1})  # type: ignore[arg-type]
    assert bars([*main, shed])[-1].holds
    assert best_run([shed]).p99 == float("inf")
    assert not bars([*main, wrong])[-1].holds


def test_least_makes_the_calls_of_decide(servers: None, tmp_path: Path) -> None:
    """The bare commands beside the script are as many as the script's, of the same kinds, for new and for held pins."""
    with ValkeyProcess(tmp_path) as server:
        redis = Redis.from_url(server.url)
        counts = []
        for script in (decide_script(), least_script()):
            redis.flushall()
            calls = Calls(script)
            redis.execute_command(*script.load)  # type: ignore[no-untyped-call]
            redis.config_resetstat()
            for keys, arguments in calls.batches(200, 100, 1):
                redis.execute_command(*script.call, len(keys), *keys, *arguments)  # type: ignore[no-untyped-call]
            stats: Any = redis.info("commandstats")
            counts.append({name: stats[f"cmdstat_{name}"]["calls"] for name in ("get", "xadd", "time", "fcall")})
            # A bucket of a limit may roll between two calls: then decide writes whole states.
            in_place = stats.get("cmdstat_setrange", {"calls": 0})["calls"]
            counts[-1]["writes"] = stats["cmdstat_set"]["calls"] + in_place
    assert counts[0] == counts[1]
    assert in_place > 0


def test_bench_redis_names_the_server(servers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every server of the bench is that program; one that is not there is named."""
    program = tmp_path / "my-redis"
    program.write_text(f'#!/bin/sh\ntouch {tmp_path}/ran\nexec {server_binary()} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("BENCH_REDIS", str(program))
    assert server_version(server_binary()).startswith("Valkey server v=")
    process, _ = start_valkey(tmp_path, "any", appendfsync=None)
    process.stop()
    assert (tmp_path / "ran").exists()
    monkeypatch.setenv("BENCH_REDIS", str(tmp_path / "gone"))
    with pytest.raises(BenchFailed, match=r"BENCH_REDIS=.*gone"):
        server_binary()


def test_a_run_with_refusals_is_not_the_best() -> None:
    """Quick refusals do not make a latency look good: without a clean run the promise fails."""
    refused = record("pod", "open", 5000, 5000, lost=1)
    assert best_run([refused]).p99 == float("inf")
    assert best_run([refused, record("pod", "open", 5000, 5000)]).p99 == 0


def test_a_key_is_within_its_bytes_by_either_measure() -> None:
    """The larger of the two counts, on every server; kinds without a promise have none."""
    costs = [
        KeyCost("valkey 9", "idempotency key", 1_000_000, 88.0, 117.0),
        KeyCost("redis 7", "idempotency key", 1_000_000, 136.0, 201.0),
        KeyCost("redis 7", "audit entry", 1_000, 1_025.0, 900.0),
        KeyCost("redis 7", "pin", 1_000, 5_000.0, None),
    ]
    assert [(b.name, b.holds) for b in memory.bars(costs)] == [
        ("idempotency key on valkey 9", True),
        ("idempotency key on redis 7", False),
        ("audit entry on redis 7", False),
    ]

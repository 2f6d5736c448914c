"""`router decide` against a real NATS with a scripted pod behind it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from router.cli.shared.exits import Exit
from tests.cli.conftest import Ran, run_process
from tests.nats_client import connect
from tests.servers import NatsProcess

pytestmark = pytest.mark.usefixtures("servers")

DECISION = {
    "provider_id": "p1",
    "priority": 50,
    "reason": "weighted",
    "expected_latency_ms": 900,
    "expected_cost": 0.006,
    "policy_id": "default",
    "policy_revision": 3,
    "decision_id": "d-1",
}
REFUSAL = {
    "ok": False,
    "error": {"code": "rate_limit_exceeded", "message": "too many", "details": {"retry_after_ms": 1500}},
    "context": {"request_id": "r"},
}


class Pod:
    """Answers every decide with `reply`, and keeps what it was asked."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.asked: list[dict[str, Any]] = []
        self.reply: dict[str, Any] = {"ok": True, "decision": DECISION, "context": {"request_id": "r"}}
        self.result: dict[str, Any] | None = None

    async def serve(self, message: Msg) -> None:
        """The answer, and the final result when one is scripted."""
        body = orjson.loads(message.data)
        self.asked.append(body)
        await self.client.publish(message.reply, orjson.dumps(self.reply), headers={"router-pod": "pod-7"})
        if self.result is not None:
            await self.client.publish(body["options"]["result_subject"], orjson.dumps(self.result))


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    """A NATS of its own: the decide subject is fixed."""
    with NatsProcess(tmp_path / "nats") as server:
        client = await connect(server.url)
        pod = Pod(client, server.url)
        await client.subscribe("beamline.router.v1.decide", cb=pod.serve)
        await client.flush()
        yield pod
        await client.close()


@pytest.fixture
def decide(pod: Pod, tmp_path: Path) -> Callable[..., Awaitable[Ran]]:
    """`await decide(…)` for tenant acme."""

    async def command(*arguments: str, stdin: bytes = b"") -> Ran:
        base = ("decide", "--nats", pod.url, "--tenant", "acme", "--task", "chat")
        return await run_process(*base, *arguments, cwd=tmp_path, stdin=stdin)

    return command


Decide = Callable[..., Awaitable[Ran]]


async def test_a_decision_is_printed(pod: Pod, decide: Decide) -> None:
    """Provider, reason, policy and the pod that answered are told, and the exit code is 0."""
    done = await decide()
    assert done.code == Exit.OK, done.err
    for word in ("p1", "weighted (priority 50)", "default, revision 3", "pod-7"):
        assert word in done.out


async def test_why_is_told_in_words(pod: Pod, decide: Decide) -> None:
    """--explain shows the candidates with their verdicts; --json leaves the reply as it is."""
    candidates = [{"provider_id": "p1", "verdict": "chosen"}, {"provider_id": "p2", "verdict": "drained"}]
    pod.reply["context"]["explain"] = {"candidates": candidates}
    assert "drained by an operator" in (await decide("--explain")).out
    assert orjson.loads((await decide("--explain", "--json")).out) == pod.reply


async def test_a_dry_run_with_a_wrong_token_names_the_setting(pod: Pod, tmp_path: Path) -> None:
    """That the question was refused is not taken for an answer about the request."""
    refusal = {"ok": False, "error": {"code": "unauthorized", "message": "send a token that is good here"}}

    async def refuse(message: Msg) -> None:
        await message.respond(orjson.dumps(refusal))

    await pod.client.subscribe("beamline.router.v1.admin.dry_run_pipeline", cb=refuse)
    await pod.client.flush()
    question = ("explain", "--nats", pod.url, "--tenant", "acme", "--task", "chat", "--dry-run")
    done = await run_process(*question, cwd=tmp_path)
    assert (done.code, done.out) == (Exit.NEGATIVE, "")
    assert "ROUTER_VIEWER_TOKEN" in done.err


async def test_the_request_is_the_documented_one(pod: Pod, decide: Decide) -> None:
    """The options become the fields of a decide request."""
    await decide(
        *("--payload", '{"a":1}', "--policy", "x", "--session", "s", "--user", "u", "--request-id", "r-9", "--push"),
        "--explain",
    )
    assert pod.asked == [
        {
            "version": "1",
            "tenant_id": "acme",
            "request_id": "r-9",
            "task": {"type": "chat", "payload": {"a": 1}},
            "policy_id": "x",
            "context": {"session_id": "s", "user_id": "u"},
            "push_assignment": True,
            "options": {"explain": True},
        }
    ]


async def test_an_empty_request_id_is_no_wish_for_a_new_one(pod: Pod, decide: Decide) -> None:
    """A variable that was not set, say: the fleet refuses it, where a task under a name of its own might run twice."""
    await decide("--request-id", "", "--session", "")
    assert pod.asked[0]["request_id"] == ""


async def test_json_is_the_reply_itself(pod: Pod, decide: Decide) -> None:
    """With --json the reply is printed as it came."""
    assert orjson.loads((await decide("--json")).out) == pod.reply


async def test_a_refusal_says_why_and_when_to_come_back(pod: Pod, decide: Decide) -> None:
    """A refusal ends with code 1 and tells code, message and details."""
    pod.reply = REFUSAL
    done = await decide()
    assert done.code == Exit.NEGATIVE
    assert "rate_limit_exceeded: too many" in done.err
    assert "1500" in done.out


async def test_the_payload_may_come_from_standard_input(pod: Pod, decide: Decide) -> None:
    """A payload of - reads standard input."""
    await decide("--payload", "-", stdin=b'{"from":"stdin"}')
    assert pod.asked[0]["task"]["payload"] == {"from": "stdin"}


async def test_the_payload_may_come_from_a_file(pod: Pod, decide: Decide, tmp_path: Path) -> None:
    """A payload of @FILE reads the file."""
    (tmp_path / "payload.json").write_text("[1,2]")
    await decide("--payload", "@payload.json")
    assert pod.asked[0]["task"]["payload"] == [1, 2]


async def test_a_payload_that_is_no_json_is_wrong_usage(decide: Decide) -> None:
    """A payload must be JSON; the message says how to write a text."""
    done = await decide("--payload", "hello")
    assert done.code == Exit.USAGE
    assert "quotes" in done.err


async def test_wait_shows_the_final_result(pod: Pod, decide: Decide) -> None:
    """With --wait the task's result is shown."""
    pod.result = {"ok": True, "status": "success", "latency_ms": 12, "attempt": 1, "output": {"x": 1}}
    done = await decide("--wait")
    assert done.code == Exit.OK, done.err
    assert "success in 12 ms, attempt 1" in done.out


async def test_a_failed_task_is_a_negative_answer(pod: Pod, decide: Decide) -> None:
    """With --wait a task that fails ends with code 1."""
    pod.result = {"ok": False, "status": "error", "error_code": "SERVER_ERROR", "latency_ms": 3, "attempt": 2}
    done = await decide("--wait")
    assert done.code == Exit.NEGATIVE
    assert "SERVER_ERROR" in done.out


async def test_a_result_that_does_not_come_is_told(pod: Pod, decide: Decide) -> None:
    """With --wait and no result in time the exit code is 3."""
    assert (await decide("--wait", "--timeout", "0.2")).code == Exit.UNREACHABLE


async def test_no_pod_is_unreachable(pod: Pod, tmp_path: Path) -> None:
    """With NATS there and no pod the exit code is 3 and the subject is named."""
    with NatsProcess(tmp_path / "other") as empty:
        done = await run_process("decide", "--nats", empty.url, "--tenant", "acme", "--task", "chat", cwd=tmp_path)
    assert done.code == Exit.UNREACHABLE
    assert "beamline.router.v1.decide" in done.err


async def test_the_fleet_of_this_folder_is_found(pod: Pod, tmp_path: Path) -> None:
    """Without any address the running local fleet of this folder is asked."""
    (tmp_path / ".local").mkdir()
    facts = {"nats": pod.url, "redis": "redis://127.0.0.1:1/0"}
    (tmp_path / ".local" / "ready.json").write_bytes(orjson.dumps(facts))
    assert (await run_process("decide", "--tenant", "acme", "--task", "chat", cwd=tmp_path)).code == Exit.OK

"""The task types of the example worker."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from router.domain.json import JsonObject
from router.worker import tasks
from router.worker.messages import Assignment, Executor, Finished, JobBody, Options
from router.worker.worker import Worker


async def perform(
    task: str, payload: JsonObject, timeout_s: float | None = 5.0, deadline_ms: int | None = None
) -> Finished:
    """Run one task given to the provider `p1`."""
    worker = Worker("nats://nowhere", name="w")
    tasks.register(worker, {"chat": "echo"})
    assignment = Assignment("1", "a", "r", "acme", Executor("p1"), JobBody(task, payload), options=Options(deadline_ms))
    return await worker.handlers.run(assignment, timeout_s)


released = threading.Event()


class Site(BaseHTTPRequestHandler):
    """/busy answers 503, /silent nothing until `released`, /away sends to a file, /big is longer than the bound.

    All else says hello.
    """

    def do_GET(self) -> None:
        """Answer."""
        match self.path:
            case "/busy":
                self.send_error(503)
                return
            case "/silent":
                released.wait(30)
                return
            case "/away":
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
                return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"x" * (2 * tasks.MAX_BODY_BYTES) if self.path == "/big" else b"hello")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A web server of our own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_echo_gives_the_payload_back() -> None:
    """Echo gives the payload back."""
    assert await perform("echo", {"a": [1, "ü"]}) == Finished("success", output={"a": [1, "ü"]})


@pytest.mark.parametrize(
    ("payload", "deadline_ms", "back"),
    [
        ({"a": 1, "timeout_ms": 5_000}, 5_000, {"a": 1}),
        ({"timeout_ms": 5_000}, 5_000, {}),
        ({"a": 1, "timeout_ms": 900}, 5_000, {"a": 1, "timeout_ms": 900}),
        ({"a": 1, "timeout_ms": 5_000}, None, {"a": 1, "timeout_ms": 5_000}),
        ({"a": {"timeout_ms": 5_000}}, 5_000, {"a": {"timeout_ms": 5_000}}),
    ],
)
async def test_echo_leaves_out_what_the_router_added(
    payload: JsonObject, deadline_ms: int | None, back: JsonObject
) -> None:
    """The router adds the deadline as `timeout_ms` to a payload without one; a caller's own comes back."""
    assert (await perform("echo", payload, deadline_ms=deadline_ms)).output == back


async def test_an_alias_names_another_task() -> None:
    """A task type may be an alias of another."""
    assert (await perform("chat", {"a": 1})).output == {"a": 1}


async def test_a_task_past_its_deadline_is_a_timeout() -> None:
    """A task that outlives its deadline ends as a timeout."""
    finished = await asyncio.wait_for(perform("sleep", {"ms": 60_000}, timeout_s=0.01), 5)
    assert (finished.status, finished.error_code) == ("timeout", "TIMEOUT")


async def test_a_task_that_comes_too_late_is_not_begun() -> None:
    """A task whose deadline is over is not run at all."""
    assert (await perform("echo", {}, timeout_s=0.0)).status == "timeout"


@pytest.mark.parametrize("ms", [None, -1, "5", True])
async def test_sleep_refuses_what_is_no_duration(ms: JsonObject) -> None:
    """Sleep refuses what is no duration."""
    assert (await perform("sleep", {"ms": ms})).error_code == "BAD_PAYLOAD"


async def test_a_payload_can_order_a_failure() -> None:
    """A payload can order the failure it wants."""
    finished = await perform("echo", {"fail": {"error_code": "SERVER_ERROR", "message": "boom"}})
    assert finished == Finished("error", error_code="SERVER_ERROR", error_message="boom")


async def test_a_failure_can_be_meant_for_another_provider() -> None:
    """A failure ordered for one provider leaves the others alone."""
    assert (await perform("echo", {"fail": {"provider_id": "p2"}})).status == "success"


async def test_http_gets_a_page(site: str) -> None:
    """Http answers with status and body."""
    assert (await perform("http", {"url": f"{site}/"})).output == {"status": 200, "body": "hello"}


async def test_http_without_an_answer_in_time_is_a_timeout(site: str) -> None:
    """The payload bounds the wait; code, message and status say so."""
    finished = await perform("http", {"url": f"{site}/silent", "timeout_ms": 50})
    released.set()
    assert finished == Finished("timeout", error_code="TIMEOUT", error_message="no answer within 0.05 s")


async def test_http_names_the_status_of_a_refusal(site: str) -> None:
    """A server's refusal is an error with its status as the code."""
    assert (await perform("http", {"url": f"{site}/busy"})).error_code == "HTTP_503"


async def test_http_cuts_a_long_body(site: str) -> None:
    """A body is cut at the bound."""
    output = (await perform("http", {"url": f"{site}/big"})).output
    assert isinstance(output, dict)
    assert len(str(output["body"])) == tasks.MAX_BODY_BYTES


async def test_http_says_when_nobody_answers() -> None:
    """A refused connection is a CONNECTION_ERROR."""
    assert (await perform("http", {"url": "http://127.0.0.1:1/"})).error_code == "CONNECTION_ERROR"


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/", "data:,x", "", None])
async def test_http_takes_no_other_scheme(url: JsonObject) -> None:
    """Only http and https are fetched."""
    assert (await perform("http", {"url": url})).error_code == "BAD_PAYLOAD"


async def test_http_follows_no_redirect_to_a_file(site: str) -> None:
    """A redirect cannot lead to a file of this machine."""
    assert (await perform("http", {"url": f"{site}/away"})).status == "error"

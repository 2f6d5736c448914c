"""The application of the API port, on a real socket, with a decide use case that answers as told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from router.domain.api_key import ApiKey, ApiRole, Asker
from router.domain.decide.decision import Code, Decided, Decision, Reason, Refused
from router.domain.tasks.task import TaskRecord, Unreadable
from router.edge.api.askers import MAX_SLOWED, Anybody, ApiKeys
from router.edge.api.decide import MAX_BATCH, Answer, DecideRoutes
from router.edge.api.decisions import DecisionRoutes
from router.edge.api.door import Door
from router.edge.api.key_file import new_key
from router.edge.api.results import ResultRoutes
from router.edge.api.tasks import TaskRoutes, wait_of
from router.edge.http.server import HttpServer
from router.ports.bus import Publication, Published
from router.wire.codes import NUMBERS
from router.wire.reply import encode
from tests.http_client import HttpClient, HttpReply

ID = "0001a0f8-0000-4000-8000-000000000000"
BODY = {"version": "1", "tenant_id": "acme", "request_id": "r1", "task": {"type": "chat"}}
DECIDED = Decided(Decision("alpha", Reason.WEIGHTED, 100, 10_000, "default", 1, ID))
Answers = Decided | Refused


class House:
    """A door with keys for one tenant, for two, for all, and one of a viewer."""

    def __init__(self, answer: Answers = DECIDED, *, askers: Any = None, **door: Any) -> None:
        self.answer = answer
        self.seen: list[tuple[bytes, Mapping[str, str] | None, str | None]] = []
        self.looked_up: list[tuple[bytes, str]] = []
        self.found: Answers = DECIDED
        self.stores = True
        self.published: list[Publication] = []
        self.publish_outcome = Published.STORED
        self.expected: dict[str, asyncio.Future[bytes | None]] = {}
        self.final: bytes | None = b""
        self.tasks: list[TaskRecord | Unreadable | None] = []
        self.wrong = 0
        self.slow = False
        self.asked = asyncio.Event()
        self.waiting: list[Answer] = []
        self.counts: list[tuple[str, int]] = []
        self.keys: dict[str, str] = {}
        made: list[ApiKey] = []
        for name, role, tenants in (
            ("one", ApiRole.CALLER, frozenset({"acme"})),
            ("two", ApiRole.CALLER, frozenset({"acme", "globex"})),
            ("all", ApiRole.ADMIN, None),
            ("viewer", ApiRole.VIEWER, None),
        ):
            key, self.keys[name] = new_key(Asker(name, role, tenants))
            made.append(key)
        self.api_keys = ApiKeys(self._wrong, slow_s=0.05)
        self.api_keys.replace(made)
        self.door = Door(
            askers or self.api_keys,
            DecideRoutes(self._handle),
            DecisionRoutes(self._get_decision),
            ResultRoutes(self, lambda _: self.stores),
            TaskRoutes(DecideRoutes(self._handle), self, self._records),
            pod="pod-1",
            count=lambda route, status: self.counts.append((route, status)),
            **door,
        )

    def _wrong(self) -> None:
        self.wrong += 1

    def _handle(
        self, data: bytes, headers: Mapping[str, str] | None, tenant: str | None, answer: Answer | None
    ) -> None:
        self.seen.append((data, headers, tenant))
        self.asked.set()
        assert answer is not None
        if self.slow:
            self.waiting.append(answer)
        else:
            answer(encode(self.answer, request_id="r1", trace_id=None), None)

    def expect(self) -> tuple[str, "asyncio.Future[bytes | None]"]:
        """Hand out a subject; its message has come already, unless `final` is empty."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        if self.final != b"":
            future.set_result(self.final)
        self.expected["_INBOX.x.1"] = future
        return "_INBOX.x.1", future

    def forget(self, subject: str) -> None:
        """Nobody waits any more."""
        del self.expected[subject]

    async def _records(self, ids: Sequence[bytes]) -> list[TaskRecord | Unreadable | None]:
        return self.tasks or [None]

    def publish(self, publication: Publication, done: Callable[[Published], None]) -> None:
        """Take a result, and answer as told."""
        self.published.append(publication)
        if not self.publish_outcome and publication.failed is not None:
            publication.failed("the server's words")
        done(self.publish_outcome)

    async def _get_decision(
        self, data: bytes, headers: Mapping[str, str], subject: str
    ) -> tuple[bytes, Mapping[str, str]]:
        self.looked_up.append((data, subject))
        return encode(self.found, request_id=None, trace_id=None), {}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[HttpClient]:
        """Serve, and connect."""
        server = HttpServer(self.door)
        port = await server.start("127.0.0.1", 0)
        try:
            async with await HttpClient.to(port) as client:
                yield client
        finally:
            await server.stop()

    async def post(self, key: str, body: object = None, path: str = "/v1/decide", **headers: str) -> HttpReply:
        """Send one request with the key of this name."""
        async with self.client() as client:
            sent = {"authorization": f"Bearer {self.keys[key]}"} | headers
            return await client.ask("POST", path, BODY if body is None else body, **sent)


async def test_a_decision_is_the_body_that_nats_gets() -> None:
    """With status 200, the pod's name, and nothing that a cache may keep."""
    house = House()
    reply = await house.post("one")
    assert reply.body == encode(DECIDED, request_id="r1", trace_id=None)
    assert (reply.status, reply.headers["router-pod"], reply.headers["cache-control"]) == (200, "pod-1", "no-store")
    assert "idempotent-replayed" not in reply.headers
    assert house.seen == [(orjson.dumps(BODY), None, "acme")]


async def test_a_replay_says_so() -> None:
    """A header of the IETF draft on idempotency."""
    house = House(Decided(DECIDED.decision, replayed=True))
    assert (await house.post("one")).headers["idempotent-replayed"] == "true"


async def test_metadata_cannot_claim_a_replay() -> None:
    """The word counts in the context only."""
    decision = Decision("alpha", Reason.WEIGHTED, 1, 1, "default", 1, ID, metadata={"replayed": True})
    assert "idempotent-replayed" not in (await House(Decided(decision)).post("one")).headers


@pytest.mark.parametrize("code", Code)
async def test_every_code_has_its_status(code: Code) -> None:
    """The one of the table."""
    assert (await House(Refused(code, "no")).post("one")).status == NUMBERS[code].http


async def test_a_limit_says_when_to_come_back() -> None:
    """In whole seconds, rounded up; the limit's id is quoted."""
    details: dict[str, Any] = {"retry_after_ms": 1200, "limit_id": 'a "b" ü'}
    headers = (await House(Refused(Code.RATE_LIMIT_EXCEEDED, "no", details)).post("one")).headers
    assert headers["retry-after"] == "2"
    assert headers["ratelimit"] == r'"a \"b\" ?";r=0;t=2'


async def test_the_true_code_gives_the_status_of_a_legacy_reply() -> None:
    """Older codes would make a 429 look like a 503."""
    house = House()

    def handle(data: bytes, headers: Any, tenant: str | None, answer: Any) -> None:
        refusal = Refused(Code.RATE_LIMIT_EXCEEDED, "no", {"retry_after_ms": 5})
        answer(encode(refusal, request_id=None, trace_id=None, legacy_codes=True), None)

    house.door = Door(
        house.api_keys,
        DecideRoutes(handle),
        DecisionRoutes(house._get_decision),
        ResultRoutes(house, lambda _: True),
        TaskRoutes(DecideRoutes(handle), house, house._records),
        pod="p",
        count=lambda _route, _status: None,
    )
    assert (await house.post("one")).status == 429


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("abc", "abc"), ('"abc"', "abc"), (r'"a\"b\\c"', r'a"b\c'), ('"', '"'), ('"open', '"open')],
)
async def test_an_idempotency_key_may_be_quoted(sent: str, expected: str) -> None:
    """As structured fields write it, or bare."""
    house = House()
    await house.post("one", idempotency_key=sent)
    assert house.seen[0][1] == {"idempotency-key": expected}


async def test_only_headers_that_a_request_may_have_are_passed_on() -> None:
    """Not the tenant: a proxy in between could be made to add it."""
    house = House()
    await house.post("one", traceparent="tp", x_client_ip="10.0.0.1", tenant_id="globex", trace_id="t")
    assert house.seen[0][1] == {"traceparent": "tp", "x-client-ip": "10.0.0.1"}


@pytest.mark.parametrize(
    ("key", "body", "status", "bound"),
    [
        ("one", {"tenant_id": "acme"}, 200, "acme"),
        ("one", {}, 200, "acme"),
        ("one", b"not json", 200, "acme"),
        ("one", {"tenant_id": "globex"}, 401, None),
        ("one", {"message": {"tenant_id": "globex"}}, 401, None),
        ("two", {"tenant_id": "globex"}, 200, "globex"),
        ("two", {"tenant_id": "other"}, 401, None),
        ("two", {}, 400, None),
        ("two", b"not json", 400, None),
        ("all", {"tenant_id": "other"}, 200, None),
        ("viewer", {"tenant_id": "acme"}, 403, None),
    ],
)
async def test_a_key_is_bound_to_its_tenants(key: str, body: object, status: int, bound: str | None) -> None:
    """The use case compares the bound tenant with what it reads itself: a second reader cannot be tricked."""
    house = House()
    assert (await house.post(key, body)).status == status
    assert [tenant for _, _, tenant in house.seen] == ([bound] if status == 200 else [])


async def test_a_batch_has_one_reply_for_each_in_order() -> None:
    """One that is refused does not fail the others."""
    house = House()
    reply = await house.post("one", {"requests": [BODY, {"tenant_id": "globex"}, BODY]}, "/v1/decide/batch")
    assert [r["ok"] for r in reply.json["replies"]] == [True, False, True]
    assert reply.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        {},
        {"requests": []},
        {"requests": {}},
        {"requests": [1] * (MAX_BATCH + 1)},
        {"requests": [1], "more": 1},
        b'{"requests":[{]}',
    ],
)
async def test_a_batch_that_is_none_is_refused(body: object) -> None:
    """As a whole, and nothing of it is decided."""
    house = House()
    reply = await house.post("one", body, "/v1/decide/batch")
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert not house.seen


async def test_a_key_for_a_whole_batch_is_refused() -> None:
    """It would name many requests with one identity."""
    reply = await House().post("one", {"requests": [BODY]}, "/v1/decide/batch", idempotency_key="k")
    assert reply.status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Basic abc"},
        {"x_api_key": ""},
        {"authorization": "Bearer rk_00112233_" + "x" * 43},
        {"x_api_key": "rk_é"},
    ],
)
async def test_without_a_key_nothing_is_read(headers: dict[str, str]) -> None:
    """401, and how to send one."""
    house = House()
    async with house.client() as client:
        reply = await client.ask("POST", "/v1/decide", BODY, **headers)
    assert (reply.status, reply.code) == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert not house.seen


async def test_a_key_of_a_known_id_with_another_secret_is_wrong() -> None:
    """Its id is no secret."""
    house = House()
    house.keys["one"] = house.keys["one"][:-1] + ("A" if house.keys["one"][-1] != "A" else "B")
    assert (await house.post("one")).status == 401
    assert house.wrong == 1


async def test_a_revoked_key_is_refused_at_once() -> None:
    """The next request after the new keys."""
    house = House()
    async with house.client() as client:
        key = f"Bearer {house.keys['one']}"
        assert (await client.ask("POST", "/v1/decide", BODY, authorization=key)).status == 200
        house.api_keys.replace([])
        assert (await client.ask("POST", "/v1/decide", BODY, authorization=key)).status == 401


async def test_guessing_is_slow_and_valid_keys_are_not() -> None:
    """Beyond those that wait, wrong keys are refused at once."""
    keys = ApiKeys(lambda: None, slow_s=3600)
    key, text = new_key(Asker("a", ApiRole.CALLER, frozenset({"acme"})))
    keys.replace([key])
    guesses = [asyncio.create_task(keys.asker({"x-api-key": "wrong"})) for _ in range(MAX_SLOWED)]
    try:
        await asyncio.sleep(0)
        refused = await keys.asker({"x-api-key": "wrong"})
        assert not isinstance(refused, Asker)
        assert refused.status == 429
        assert await keys.asker({"x-api-key": text}) == key.asker
    finally:
        for guess in guesses:
            guess.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 5 << 20])
async def test_a_large_body_is_refused(size: int) -> None:
    """With 413 and the same intake code as over NATS."""
    reply = await House().post("one", b"x" * size)
    assert (reply.status, reply.json["error"]["details"]["intake_error_code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_body_in_chunks_is_bounded_too() -> None:
    """It says no length before."""
    house = House()
    async with house.client() as client:
        head = f"POST /v1/decide HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.keys['one']}\r\n"
        client.writer.write(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(33):
            client.writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        client.writer.write(b"0\r\n\r\n")
        assert (await client.reply()).status == 413
    assert not house.seen


async def test_a_body_of_the_largest_size_is_read() -> None:
    """One MiB."""
    house = House()
    assert (await house.post("one", b"x" * (1 << 20))).status == 200


async def test_a_client_that_hangs_up_is_no_fault() -> None:
    """Its answer is dropped; the next request is answered."""
    house = House()
    house.slow = True
    server = HttpServer(house.door)
    port = await server.start("127.0.0.1", 0)
    try:
        async with await HttpClient.to(port) as gone:
            gone.send("POST", "/v1/decide", orjson.dumps(BODY), authorization=f"Bearer {house.keys['one']}")
            await asyncio.wait_for(house.asked.wait(), 30)
        house.slow = False
        async with await HttpClient.to(port) as client:
            key = f"Bearer {house.keys['one']}"
            assert (await client.ask("POST", "/v1/decide", BODY, authorization=key)).status == 200
        house.waiting[0](encode(DECIDED, request_id="r1", trace_id=None), None)
    finally:
        await server.stop()


async def test_a_bug_has_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """500, and the log has the traceback."""
    house = House()

    def handle(data: bytes, headers: Any, tenant: str | None, answer: Any) -> None:
        raise RuntimeError("a bug")

    house.door._posts["/v1/decide"] = DecideRoutes(handle).decide
    reply = await house.post("one")
    assert (reply.status, reply.code) == (500, "internal")
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/decide", 405), ("DELETE", "/v1/decisions/x", 405), ("POST", "/v1/decide/", 404)],
)
async def test_what_is_not_there_says_what_is(method: str, path: str, status: int) -> None:
    """In the form of every refusal."""
    async with House().client() as client:
        reply = await client.ask(method, path)
    assert reply.status == status
    assert "/v1/decide" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("key", "query", "status", "subject"),
    [
        ("one", "", 200, "beamline.router.v1.get_decision.acme"),
        ("one", "?tenant=acme", 200, "beamline.router.v1.get_decision.acme"),
        ("one", "?tenant=globex", 404, None),
        ("two", "", 400, None),
        ("two", "?tenant=globex", 200, "beamline.router.v1.get_decision.globex"),
        ("all", "", 400, None),
        ("viewer", "?tenant=any", 200, "beamline.router.v1.get_decision.any"),
    ],
)
async def test_a_decision_is_looked_up_for_a_tenant(key: str, query: str, status: int, subject: str | None) -> None:
    """That of the key, or the one that is named."""
    house = House()
    async with house.client() as client:
        reply = await client.ask("GET", f"/v1/decisions/{ID}{query}", authorization=f"Bearer {house.keys[key]}")
    assert reply.status == status
    assert [s for _, s in house.looked_up] == ([] if subject is None else [subject])


async def test_a_foreign_decision_is_not_found() -> None:
    """Nothing says that it exists."""
    house = House()
    house.found = Refused(Code.UNAUTHORIZED, "it belongs to globex")
    async with house.client() as client:
        reply = await client.ask("GET", f"/v1/decisions/{ID}", authorization=f"Bearer {house.keys['one']}")
    assert (reply.status, reply.code) == (404, "decision_not_found")
    assert b"globex" not in reply.body


@pytest.mark.parametrize(
    ("host", "content_type", "status"),
    [
        ("127.0.0.1:8081", "application/json", 200),
        ("[::1]:8081", "application/json; charset=utf-8", 200),
        ("localhost", "application/json", 200),
        ("router.internal:8081", "application/json", 200),
        ("evil.example", "application/json", 401),
        ("127.0.0.1.evil.example", "application/json", 401),
        ("127.0.0.1", "text/plain", 415),
        ("127.0.0.1", "application/x-www-form-urlencoded", 415),
        ("127.0.0.1", "", 415),
    ],
)
async def test_an_open_api_answers_programs_only(host: str, content_type: str, status: int) -> None:
    """A web page chooses neither Host nor this content type without being asked first."""
    house = House(askers=Anybody(["router.internal"]), json_only=True)
    async with house.client() as client:
        assert (await client.ask("POST", "/v1/decide", BODY, host=host, content_type=content_type)).status == status


async def test_web_pages_may_not_ask_unless_they_are_named() -> None:
    """CORS is off, and on for the origin that is named."""
    preflight = {"origin": "https://a.example", "access_control_request_method": "POST"}
    async with House().client() as client:
        assert "access-control-allow-origin" not in (await client.ask("OPTIONS", "/v1/decide", **preflight)).headers
    async with House(origins=["https://a.example"]).client() as client:
        reply = await client.ask("OPTIONS", "/v1/decide", **preflight)
        assert reply.headers["access-control-allow-origin"] == "https://a.example"
        preflight["origin"] = "https://b.example"
        reply = await client.ask("OPTIONS", "/v1/decide", **preflight)
        assert "access-control-allow-origin" not in reply.headers


async def test_every_reply_is_counted_by_its_route() -> None:
    """Paths of strangers share one name."""
    house = House()
    async with house.client() as client:
        await client.ask("GET", "/etc/passwd")
        await client.ask("POST", "/v1/decide", BODY)
    assert house.counts == [("other", 404), ("/v1/decide", 401)]


RESULT = {"version": "1", "request_id": "r1", "status": "success", "provider_id": "alpha", "job": {"type": "chat"}}


@pytest.mark.parametrize(
    ("key", "tenant", "status", "subject"),
    [
        ("one", "acme", 202, "caf.exec.result.v1.tenant.acme"),
        ("one", None, 202, "caf.exec.result.v1.tenant.acme"),
        ("one", "globex", 401, None),
        ("two", "globex", 202, "caf.exec.result.v1.tenant.globex"),
        ("all", "a.b", 202, "caf.exec.result.v1.tenant.a.b"),
        ("all", "a..b", 400, None),
        ("viewer", "acme", 403, None),
    ],
)
async def test_a_result_goes_under_its_tenants_subject(
    key: str, tenant: str | None, status: int, subject: str | None
) -> None:
    """The one way in: who settles it reads the tenant from there."""
    house = House()
    body = RESULT | ({} if tenant is None else {"tenant_id": tenant})
    assert (await house.post(key, body, "/v1/results")).status == status
    assert [p.subject for p in house.published] == ([] if subject is None else [subject])
    assert all(p.payload == orjson.dumps(body) for p in house.published)


async def test_a_result_sent_twice_has_one_message_id() -> None:
    """So the stream stores it once; a result that differs is another one."""
    house = House()
    for body in (RESULT, RESULT, RESULT | {"cost": 0.1}):
        await house.post("one", body | {"tenant_id": "acme"}, "/v1/results")
    first, second, third = (p.message_id for p in house.published)
    assert first == second != third


@pytest.mark.parametrize("body", [b"", b"{", {"version": "1"}, RESULT | {"tenant_id": "acme", "status": "maybe"}])
async def test_a_result_that_settles_nothing_is_refused(body: object) -> None:
    """At once, and not as a dead letter later."""
    house = House()
    assert (await house.post("one", body, "/v1/results")).status == 400
    assert not house.published


async def test_a_result_that_no_stream_stores_is_refused() -> None:
    """With what to do, or with the server's words."""
    house = House()
    house.publish_outcome = Published.REFUSED
    reply = await house.post("one", RESULT | {"tenant_id": "acme"}, "/v1/results")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "the server's words" in reply.json["error"]["message"]
    house.stores = False
    reply = await house.post("one", RESULT | {"tenant_id": "acme"}, "/v1/results")
    assert (reply.status, len(house.published)) == (503, 1)
    assert "nats stream edit" in reply.json["error"]["message"]


TASK = Decided(DECIDED.decision, assignment_id=ID)
FINAL = b'{"ok":true,"status":"success"}'


async def test_a_task_is_pushed_and_has_an_address() -> None:
    """202: it is accepted, and its end is told there."""
    house = House(TASK)
    reply = await house.post("one", path="/v1/tasks")
    assert (reply.status, reply.headers["location"]) == (202, f"/v1/tasks/{ID}")
    assert orjson.loads(house.seen[0][0]) == BODY | {"push_assignment": True}


async def test_a_task_that_is_waited_for_answers_with_its_end() -> None:
    """The final result itself; nobody waits for its subject afterwards."""
    house = House(TASK)
    house.final = FINAL
    reply = await house.post("one", path="/v1/tasks", prefer="respond-async, wait=5")
    assert (reply.status, reply.body) == (200, FINAL)
    assert (reply.headers["location"], reply.headers["preference-applied"]) == (f"/v1/tasks/{ID}", "wait=5")
    assert orjson.loads(house.seen[0][0])["options"] == {"result_subject": "_INBOX.x.1"}
    assert house.expected == {}


@pytest.mark.parametrize("final", [b"", None])
async def test_a_task_that_takes_longer_is_accepted(final: bytes | None) -> None:
    """As without the wish; so is one whose pod ends."""
    house = House(TASK)
    house.final = final
    reply = await house.post("one", path="/v1/tasks", prefer="wait=1")
    assert (reply.status, reply.headers["preference-applied"]) == (202, "wait=1")
    assert house.expected == {}


async def test_a_refused_task_is_not_waited_for() -> None:
    """The refusal is the answer."""
    house = House(Refused(Code.UNAVAILABLE, "no", {"retry_after_ms": 1}))
    assert (await house.post("one", path="/v1/tasks", prefer="wait=60")).status == 503
    assert house.expected == {}


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [("", 0), ("wait=5", 5), ('foo; wait = "7"', 7), ("wait=9999", 60), ("wait=0", 0), ("await=5", 0), ("wait=-1", 0)],
)
def test_the_wish_to_wait_is_read_and_bounded(prefer: str, seconds: int) -> None:
    """RFC 7240; beyond a minute, a minute."""
    assert wait_of(prefer) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        BODY | {"push_assignment": False},
        BODY | {"push_assignment": "false"},
        BODY | {"options": {"result_subject": "_INBOX.mine"}},
    ],
)
async def test_a_task_that_is_none_is_refused(body: object) -> None:
    """And nothing is decided."""
    house = House(TASK)
    assert (await house.post("one", body, "/v1/tasks", prefer="wait=5")).status == 400
    assert not house.seen


async def test_a_task_keeps_what_only_a_decoder_may_judge() -> None:
    """Half an emoji and integers beyond 64 bits arrive as they were sent."""
    house = House(TASK)
    body = orjson.dumps(BODY)[:-1] + b',"metadata":{"n":123456789012345678901234567890,"s":"\\ud83d"}}'
    await house.post("one", body, "/v1/tasks")
    assert b'"n":123456789012345678901234567890,"s":"\\ud83d"' in house.seen[0][0]


async def test_an_unknown_task_is_not_found() -> None:
    """Nor is one that cannot be read; what is no id is wrong."""
    house = House()
    async with house.client() as client:
        key = f"Bearer {house.keys['one']}"
        for tasks in ([None], [Unreadable("damaged")]):
            house.tasks = [*tasks]
            assert (await client.ask("GET", f"/v1/tasks/{ID}", authorization=key)).status == 404
        assert (await client.ask("GET", "/v1/tasks/xyz", authorization=key)).status == 400


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/decide HTTP/1.1\r\nHost: x",
        b"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
async def test_half_a_request_does_not_hold_up_the_end(sent: bytes) -> None:
    """It was not accepted. The requests that were have the time."""
    house = House(askers=Anybody([]))
    server = HttpServer(house.door, graceful_s=60)
    async with await HttpClient.to(await server.start("127.0.0.1", 0)) as client:
        client.writer.write(sent)
        await client.writer.drain()
        async with await HttpClient.to(client.writer.get_extra_info("peername")[1]) as other:
            await other.ask("GET", "/")  # the server has read the first one, too
        await asyncio.wait_for(server.stop(), 20)


@pytest.mark.parametrize("options", [None, {}, {"result_subject": None}])
async def test_no_options_are_no_reason_to_wait_in_vain(options: object) -> None:
    """Null counts as absent, as everywhere in a request."""
    house = House(TASK)
    house.final = FINAL
    assert (await house.post("one", BODY | {"options": options}, "/v1/tasks", prefer="wait=5")).body == FINAL
    assert orjson.loads(house.seen[0][0])["options"] == {"result_subject": "_INBOX.x.1"}

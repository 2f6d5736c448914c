"""The task types of the example worker (`router worker`): echo, sleep and http. Every one can be told to fail.

    echo   {…}                                     → the payload itself
    sleep  {"ms": 250}                             → {"slept_ms": 250}
    http   {"url": "https://…", "timeout_ms": 900} → {"status": 200, "body": "…"} (a GET; the body is cut at 64 KiB)
    any    {"fail": {"error_code": "SERVER_ERROR", "message"?, "status"?, "provider_id"?}}
           → that failure; with provider_id only when the task was given to that provider

The http task fetches whatever URL it is given: run it only where every tenant may reach what the worker can reach.
"""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

from router.domain.json import JsonObject, JsonValue
from router.worker.job import Failed, Job
from router.worker.worker import Worker

MAX_BODY_BYTES = 64 * 1024
DEFAULT_HTTP_TIMEOUT_MS = 10_000

Task = Callable[[Job[JsonObject]], Awaitable[JsonValue]]


def register(worker: Worker, aliases: Mapping[str, str]) -> None:
    """Teach a worker the example tasks; `aliases` maps further task types to them (`{"chat": "echo"}`)."""
    for name, task in TASKS.items():
        worker.job(name)(_obeying(task))
    for alias, name in aliases.items():
        worker.job(alias)(_obeying(TASKS[name]))


def _obeying(task: Task) -> Task:
    """The task, unless its payload orders a failure."""

    async def run(job: Job[JsonObject]) -> JsonValue:
        wish = job.payload.get("fail")
        if isinstance(wish, dict) and wish.get("provider_id", job.provider_id) == job.provider_id:
            raise Failed(
                str(wish.get("error_code", "SERVER_ERROR")),
                str(wish.get("message", "the payload asked for this failure")),
                status=str(wish.get("status", "error")),
            )
        return await task(job)

    return run


async def _echo(job: Job[JsonObject]) -> JsonValue:
    return job.payload


async def _sleep(job: Job[JsonObject]) -> JsonValue:
    ms = job.payload.get("ms")
    if isinstance(ms, bool) or not isinstance(ms, int | float) or ms < 0:
        raise Failed("BAD_PAYLOAD", "sleep needs ms, a number ≥ 0")
    await asyncio.sleep(ms / 1000)
    return {"slept_ms": ms}


async def _http(job: Job[JsonObject]) -> JsonValue:
    url = job.payload.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"}:
        raise Failed("BAD_PAYLOAD", "http needs url, starting with http:// or https://")
    timeout_ms = job.payload.get("timeout_ms", DEFAULT_HTTP_TIMEOUT_MS)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int | float) or timeout_ms <= 0:
        raise Failed("BAD_PAYLOAD", "timeout_ms must be a number > 0")
    return await asyncio.to_thread(_get, url, timeout_ms / 1000)


def _get(url: str, timeout_s: float) -> JsonValue:
    late = Failed("TIMEOUT", f"no answer within {timeout_s:g} s", status="timeout")
    try:
        with _opener.open(url, timeout=timeout_s) as answer:
            return {"status": answer.status, "body": answer.read(MAX_BODY_BYTES).decode("utf-8", "replace")}
    except urllib.error.HTTPError as e:
        e.close()
        raise Failed(f"HTTP_{e.code}", f"the server answered {e.code} {e.reason}") from e
    except TimeoutError as e:
        raise late from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, TimeoutError):
            raise late from e
        raise Failed("CONNECTION_ERROR", str(e.reason)) from e
    except (OSError, HTTPException, ValueError) as e:  # ValueError: a URL that urllib cannot use
        raise Failed("CONNECTION_ERROR", str(e) or type(e).__name__) from e


def _http_only() -> urllib.request.OpenerDirector:
    """An opener without the file, ftp and data handlers, so that no redirect leads to them."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "router-example-worker")]
    return opener


_opener = _http_only()

TASKS: dict[str, Task] = {"echo": _echo, "sleep": _sleep, "http": _http}

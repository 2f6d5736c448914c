"""The job types of the example worker (`router worker`): echo, sleep and http. A payload can make each of them fail.

    echo   {…}                                     → the payload itself, without a timeout_ms that the router added
    sleep  {"ms": 250}                             → {"slept_ms": 250}
    http   {"url": "https://…", "timeout_ms": 900} → {"status": 200, "body": "…"} (a GET; the body is cut at 64 KiB)
    any    {"fail": {"error_code": "SERVER_ERROR", "message"?, "status"?, "provider_id"?}}
           → that failure; with provider_id only when that provider was chosen

The http job fetches any URL in its payload: run it only where every tenant may reach what the worker can reach.
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
    """Register the example tasks; `aliases` maps further job types to them (`{"chat": "echo"}`)."""
    for name, task in TASKS.items():
        worker.job(name)(_with_failures(task))
    for alias, name in aliases.items():
        worker.job(alias)(_with_failures(TASKS[name]))


def _with_failures(task: Task) -> Task:
    """Wrap a task so that `fail` in its payload makes it fail."""

    async def run(job: Job[JsonObject]) -> JsonValue:
        failure = job.payload.get("fail")
        if isinstance(failure, dict) and failure.get("provider_id", job.provider_id) == job.provider_id:
            raise Failed(
                str(failure.get("error_code", "SERVER_ERROR")),
                str(failure.get("message", "the payload asked for this failure")),
                status=str(failure.get("status", "error")),
            )
        return await task(job)

    return run


async def _echo(job: Job[JsonObject]) -> JsonValue:
    if job.timeout_added:
        return {name: value for name, value in job.payload.items() if name != "timeout_ms"}
    return job.payload


async def _sleep(job: Job[JsonObject]) -> JsonValue:
    ms = job.payload.get("ms")
    if isinstance(ms, bool) or not isinstance(ms, int | float) or ms < 0:
        raise Failed("BAD_PAYLOAD", "sleep needs ms: a number ≥ 0, in milliseconds")
    await asyncio.sleep(ms / 1000)
    return {"slept_ms": ms}


async def _http(job: Job[JsonObject]) -> JsonValue:
    url = job.payload.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"}:
        raise Failed("BAD_PAYLOAD", "http needs url: a string that starts with http:// or https://")
    timeout_ms = job.payload.get("timeout_ms", DEFAULT_HTTP_TIMEOUT_MS)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int | float) or timeout_ms <= 0:
        raise Failed("BAD_PAYLOAD", "http needs timeout_ms as a number > 0, or none")
    return await asyncio.to_thread(_get, url, timeout_ms / 1000)


def _get(url: str, timeout_s: float) -> JsonValue:
    timed_out = Failed("TIMEOUT", f"no answer within {timeout_s:g} s", status="timeout")
    try:
        with _opener.open(url, timeout=timeout_s) as response:
            return {"status": response.status, "body": response.read(MAX_BODY_BYTES).decode("utf-8", errors="replace")}
    except urllib.error.HTTPError as e:
        e.close()
        raise Failed(f"HTTP_{e.code}", f"the server answered {e.code} {e.reason}") from e
    except TimeoutError as e:
        raise timed_out from e
    except urllib.error.URLError as e:
        if isinstance(e.reason, TimeoutError):
            raise timed_out from e
        raise Failed("CONNECTION_ERROR", str(e.reason)) from e
    except (OSError, HTTPException, ValueError) as e:  # ValueError: a URL that urllib cannot use
        raise Failed("CONNECTION_ERROR", str(e) or type(e).__name__) from e


def _http_only() -> urllib.request.OpenerDirector:
    """Build an opener without the file, ftp and data handlers, so that no redirect can reach them."""
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

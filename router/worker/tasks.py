"""The task types of the example worker: echo, sleep and http. Every one can be told to fail.

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
from collections.abc import Awaitable, Callable
from http.client import HTTPException
from urllib.parse import urlsplit

from router.domain.json import JsonObject
from router.worker.messages import Assignment, Finished

MAX_BODY_BYTES = 64 * 1024
DEFAULT_HTTP_TIMEOUT_MS = 10_000

_LATE = Finished("timeout", error_code="TIMEOUT", error_message="the deadline passed")

Task = Callable[[JsonObject], Awaitable[Finished]]


async def run(assignment: Assignment, aliases: dict[str, str], timeout_s: float | None) -> Finished:
    """Run one assignment within `timeout_s`. Never raises for what a payload can do: that is an error result.

    `aliases` maps further task types to the ones here (`{"chat": "echo"}`).
    """
    job = assignment.job
    if timeout_s is not None and timeout_s <= 0:
        return _LATE
    failure = _ordered_failure(job.payload, assignment.executor.provider_id)
    if failure is not None:
        return failure
    task = TASKS.get(aliases.get(job.type, job.type))
    if task is None:
        known = ", ".join(sorted(TASKS.keys() | aliases.keys()))
        return Finished("error", error_code="UNSUPPORTED_TASK_TYPE", error_message=f"this worker runs {known}")
    try:
        async with asyncio.timeout(timeout_s):
            return await task(job.payload)
    except TimeoutError:
        return _LATE


def _ordered_failure(payload: JsonObject, provider_id: str) -> Finished | None:
    wish = payload.get("fail")
    if not isinstance(wish, dict) or wish.get("provider_id", provider_id) != provider_id:
        return None
    return Finished(
        str(wish.get("status", "error")),
        error_code=str(wish.get("error_code", "SERVER_ERROR")),
        error_message=str(wish.get("message", "the payload asked for this failure")),
    )


async def _echo(payload: JsonObject) -> Finished:
    return Finished("success", output=payload)


async def _sleep(payload: JsonObject) -> Finished:
    ms = payload.get("ms")
    if isinstance(ms, bool) or not isinstance(ms, int | float) or ms < 0:
        return _bad_payload("sleep needs ms, a number ≥ 0")
    await asyncio.sleep(ms / 1000)
    return Finished("success", output={"slept_ms": ms})


async def _http(payload: JsonObject) -> Finished:
    url = payload.get("url")
    if not isinstance(url, str) or urlsplit(url).scheme not in {"http", "https"}:
        return _bad_payload("http needs url, starting with http:// or https://")
    timeout_ms = payload.get("timeout_ms", DEFAULT_HTTP_TIMEOUT_MS)
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int | float) or timeout_ms <= 0:
        return _bad_payload("timeout_ms must be a number > 0")
    return await asyncio.to_thread(_get, url, timeout_ms / 1000)


def _get(url: str, timeout_s: float) -> Finished:
    try:
        with _opener.open(url, timeout=timeout_s) as answer:
            body = answer.read(MAX_BODY_BYTES).decode("utf-8", "replace")
            return Finished("success", output={"status": answer.status, "body": body})
    except urllib.error.HTTPError as e:
        e.close()
        return Finished("error", error_code=f"HTTP_{e.code}", error_message=f"the server answered {e.code} {e.reason}")
    except TimeoutError:
        return Finished("timeout", error_code="TIMEOUT", error_message=f"no answer within {timeout_s:g} s")
    except urllib.error.URLError as e:
        if isinstance(e.reason, TimeoutError):
            return Finished("timeout", error_code="TIMEOUT", error_message=f"no answer within {timeout_s:g} s")
        return Finished("error", error_code="CONNECTION_ERROR", error_message=str(e.reason))
    except (OSError, HTTPException, ValueError) as e:  # ValueError: a URL that urllib cannot use
        return Finished("error", error_code="CONNECTION_ERROR", error_message=str(e) or type(e).__name__)


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


def _bad_payload(message: str) -> Finished:
    return Finished("error", error_code="BAD_PAYLOAD", error_message=message)


_opener = _http_only()

TASKS: dict[str, Task] = {"echo": _echo, "sleep": _sleep, "http": _http}

"""Log lines: parseable, complete, and without secrets."""

import io
import logging
from collections.abc import Callable, Iterator

import orjson
import pytest

from router.logs import configure
from router.telemetry import Event

SECRET = "s3cr3t-value-of-this-pod"  # noqa: S105 - a test's own
Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the process logs to, for this test."""
    root, stream = logging.getLogger(), io.StringIO()
    level = root.level
    handler = configure("info", "json", pod="pod-1", secrets=[SECRET], stream=stream)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """The lines so far, parsed."""
    return lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_fixed_fields_and_the_callers(lines: Lines) -> None:
    """ts, level, event, logger, message, pod; then what the caller knows."""
    fields = {"event": Event.STORE_AWAY, "tenant_id": "acme", "request_id": "r1", "trace_id": "ab"}
    logging.getLogger("router.store").warning("timed out after %d ms", 50, extra=fields)
    (line,) = lines()
    ts = line.pop("ts")
    assert isinstance(ts, str)
    assert ts.endswith("Z")
    assert line == {
        "level": "warning",
        "event": "store.away",
        "logger": "router.store",
        "message": "timed out after 50 ms",
        "pod": "pod-1",
        "tenant_id": "acme",
        "request_id": "r1",
        "trace_id": "ab",
    }


def test_a_line_is_one_line(stream: io.StringIO) -> None:
    """Newlines of a caller cannot forge a second one."""
    logging.getLogger("router").warning('a\n{"level":"forged"}')
    assert len(stream.getvalue().splitlines()) == 1


def test_a_callers_field_does_not_replace_ours(lines: Lines) -> None:
    """Nor forge a level."""
    logging.getLogger("router").warning("x", extra={"level": "debug", "ts": "never"})
    (line,) = lines()
    assert line["level"] == "warning"
    assert line["ts"] != "never"


@pytest.mark.parametrize(
    "text",
    [
        f"connecting with {SECRET}",
        "redis://:hunter2-pass@r:6379 refused",
        "nats://user:hunter2-pass@n:4222",
        "Authorization: Bearer hunter2-pass",
        "password=hunter2-pass rest",
        '{"api_key": "hunter2-pass"}',
    ],
)
def test_secrets_in_words_do_not_get_out(stream: io.StringIO, text: str) -> None:
    """This pod's own, credentials in URLs, bearer tokens and pairs that say what they are."""
    logging.getLogger("router").warning(text)
    assert "hunter2" not in stream.getvalue()
    assert SECRET not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_secrets_in_fields_do_not_get_out(stream: io.StringIO) -> None:
    """By the field's name, however deep; and by value."""
    fields = {"headers": {"authorization": "hunter2"}, "list": [f"x{SECRET}"], "admin_token": "hunter2"}
    logging.getLogger("router").warning("x", extra=fields)
    assert "hunter2" not in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_secrets_in_a_traceback_do_not_get_out(lines: Lines) -> None:
    """Exceptions of libraries quote URLs."""
    try:
        raise RuntimeError(f"cannot log in with {SECRET}")
    except RuntimeError:
        logging.getLogger("router").exception("failed")
    (line,) = lines()
    assert "RuntimeError" in str(line["error"])
    assert SECRET not in str(line)


def test_numbers_called_tokens_are_no_secret(lines: Lines) -> None:
    """Usage is counted in tokens."""
    logging.getLogger("router").warning("x", extra={"tokens": 512, "idempotency_key": "k"})
    (line,) = lines()
    assert (line["tokens"], line["idempotency_key"]) == (512, "k")


def test_what_json_does_not_know_is_written_as_text(lines: Lines) -> None:
    """A log line never fails."""
    logging.getLogger("router").warning("x", extra={"value": object(), "bad": "\ud800", "big": 1 << 80})
    assert "object" in str(lines()[0]["value"])


def test_the_level_is_kept(lines: Lines) -> None:
    """info does not write debug."""
    logging.getLogger("router").debug("x")
    assert lines() == []


def test_human_lines_have_words_first() -> None:
    """For a terminal."""
    stream = io.StringIO()
    handler = configure("info", "human", stream=stream)
    logging.getLogger("router").warning("hello", extra={"event": Event.POD_READY, "tenant_id": "acme"})
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    assert "warning pod.ready" in stream.getvalue()
    assert "hello  tenant_id=acme" in stream.getvalue()

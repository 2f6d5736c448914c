"""Types that parse and check the text of an environment variable: durations, sizes, lists, URLs, files."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.config import JsonDict

from router.settings import redis_url

_DURATION = re.compile(r"(\d+)\s*(ms|s|m|h|d)?")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_SIZE_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
TENANT = re.compile(r"[A-Za-z0-9_.-]{1,255}")


@dataclass(frozen=True, slots=True)
class Unit:
    """Unit of a field, for the reference. The variable of a duration has its unit in the value, not in the name."""

    name: str
    is_duration: bool = False


def _duration(unit: str) -> Callable[[object], object]:
    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("expected a duration such as 500ms, 60s, 30m, 24h or 7d")
        value_ms = int(match[1]) * _DURATION_MS[match[2] or unit]
        whole, rest = divmod(value_ms, _DURATION_MS[unit])
        if rest:
            raise ValueError(f"expected whole {unit}")
        return whole

    return parse


def duration_text(value: int, unit: str) -> str:
    """The shortest exact way to write a duration."""
    value_ms = value * _DURATION_MS[unit]
    for name, factor in reversed(_DURATION_MS.items()):
        if value_ms % factor == 0 and value_ms >= factor:
            return f"{value_ms // factor}{name}"
    return f"0{unit}"


def size_text(value: int) -> str:
    """The shortest exact way to write a size."""
    for name, factor in reversed(_SIZE_BYTES.items()):
        if value % factor == 0 and value >= factor > 1:
            return f"{value // factor}{name}"
    return str(value)


def in_words(value: object, unit: Unit | None) -> str:
    """A number as the variable would hold it, with its unit; any other value as text."""
    if unit is None or not isinstance(value, int) or isinstance(value, bool):
        return str(value)
    return duration_text(value, unit.name) if unit.is_duration else size_text(value)


def _size(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("expected a size such as 65536, 64KiB or 1MiB")
    return int(match[1]) * _SIZE_BYTES[match[2] or "B"]


def _comma_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    items = [item.strip() for item in value.split(",")] if value.strip() else []
    if not all(items):
        raise ValueError("has an empty item between its commas")
    if len(set(items)) < len(items):
        raise ValueError("names an item twice")
    return tuple(items)


def _tenant(value: str) -> str:
    if TENANT.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a tenant name: use letters, digits, _ . - and at most 255 characters")
    return value


def _existing_file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"there is no file {value}")
    return value


def _url(*schemes: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in schemes or not rest:
            raise ValueError(f"expected a URL that starts with {' or '.join(f'{s}://' for s in schemes)}")
        if re.search(r"\s", value):
            raise ValueError("has white space: write it as %20")
        if not _is_sound(value):
            raise ValueError("expected a URL with an address, and a port from 1 to 65535 if it has one")
        return value

    return check


def _nats_url(value: str) -> str:
    if urlsplit(value)[2:] not in {("", "", ""), ("/", "", "")}:
        raise ValueError("has a path or parameters after the port: remove them")
    return value


def _is_sound(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # the exception is not chained: its text contains the URL, which may contain a password
        return False


def host_port(text: str, default: int) -> tuple[str, int]:
    """Host and port of `host:port`, `host`, `[IPv6]:port`.

    :raises ValueError: it is none of these.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or set(text) & set("/?#@ ") or text.endswith(":"):
        raise ValueError("expected host:port, such as sentinel-0:26379 or [::1]:26379")
    return host, port or default


def _sentinel(value: str) -> str:
    host_port(value, SENTINEL_PORT)
    return value


SENTINEL_PORT = 26379
Ms = Annotated[int, BeforeValidator(_duration("ms")), Unit("ms", is_duration=True)]
Seconds = Annotated[int, BeforeValidator(_duration("s")), Unit("s", is_duration=True)]
Size = Annotated[int, BeforeValidator(_size), Unit("bytes")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_comma_list)]
Tenant = Annotated[str, AfterValidator(_tenant)]
Tenants = Annotated[tuple[Tenant, ...], BeforeValidator(_comma_list)]
ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
NatsUrls = Annotated[
    tuple[Annotated[str, AfterValidator(_url("nats", "tls")), AfterValidator(_nats_url)], ...],
    BeforeValidator(_comma_list),
]
RedisUrl = Annotated[str, AfterValidator(redis_url.check)]
Sentinels = Annotated[tuple[Annotated[str, AfterValidator(_sentinel)], ...], BeforeValidator(_comma_list)]
HttpUrl = Annotated[str, AfterValidator(_url("http", "https"))]
StreamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def setting(default: Any, *, description: str, default_text: str = "", **constraints: Any) -> Any:
    """A field with its description in the reference. `default_text` describes a default that is computed at start."""
    extra: JsonDict | None = {"default_text": default_text} if default_text else None
    if callable(default):
        return Field(default_factory=default, description=description, json_schema_extra=extra, **constraints)
    return Field(default, description=description, json_schema_extra=extra, **constraints)

"""Decides, in one place, which parts of an address may be shown in logs, settings, errors, readiness and commands.

Shown are scheme, host, port and path, and the values of the parameters in `_SHOWN`. The login before the host is hidden
completely, because a user name alone may be a token. An address that could be read in two ways, such as one with a `/`
or `?` before its last `@`, is hidden completely.
"""

import re
from typing import Final

HIDDEN: Final = "***"

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,31}://"
_STARTS = re.compile(_SCHEME)
_NEXT = re.compile(rf",\s*(?={_SCHEME})")
_SPACE = re.compile(r"\s")
_TAIL = re.compile(r"[\"'`)\]}>,.;:!]*\Z")
_PLAIN = re.compile(
    r"(?P<host>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\])?(?::\d{1,5})?)(?P<path>/[^\s?#@]*)?(?:\?(?P<query>[^\s#]*))?"
)
_SHOWN = frozenset({"db", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


def address(url: str) -> str:
    """Redact one address, or a list of addresses with commas."""
    if _STARTS.match(url) is None:
        return HIDDEN
    return ",".join(_whole(part) for part in _NEXT.split(url))


def redacted(text: str) -> str:
    """Redact every address in a text. An address ends at white space."""
    if "://" not in text:
        return text
    pieces: list[str] = []
    done = 0
    for start in _STARTS.finditer(text):
        if start.start() < done:
            continue  # inside an earlier address that is redacted already
        space = _SPACE.search(text, start.end())
        end = len(text) if space is None else space.start()
        following = _NEXT.search(text, start.end(), end + 1)
        if following is not None:
            end = following.start()
        pieces += text[done : start.start()], _within(text[start.start() : end])
        done = end
    return "".join((*pieces, text[done:]))


def _within(url: str) -> str:
    """Redact an address that may be followed by punctuation of the text."""
    tail = _TAIL.search(url)
    assert tail is not None  # noqa: S101 - it may be empty
    shown = _whole(url[: tail.start()])
    return shown if shown.endswith(HIDDEN) else shown + tail[0]


def _whole(url: str) -> str:
    scheme, _, rest = url.partition("://")
    before, at, behind = rest.rpartition("@")
    plain = _PLAIN.fullmatch(behind)
    if plain is None or set("/?#") & set(before):
        return f"{scheme}://{HIDDEN}"
    query = "" if plain["query"] is None else f"?{'&'.join(map(_parameter, plain['query'].split('&')))}"
    return f"{scheme}://{HIDDEN + '@' if at else ''}{plain['host']}{plain['path'] or ''}{query}"


def _parameter(text: str) -> str:
    name, equals, _ = text.partition("=")
    if name in _SHOWN:
        return text
    return f"{name}={HIDDEN}" if equals and name.isidentifier() else HIDDEN

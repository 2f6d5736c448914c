"""The form of a Redis URL: `redis://`, `rediss://` (TLS) and `unix://`, with the parameters that the router takes.

redis-py hands every parameter to its connections, so a misspelt one fails late and `ssl_cert_reqs=none` goes unnoticed.
Here an unknown parameter is refused. `weakened` lists the parameters that weaken TLS; a setting must permit them.
"""

from collections.abc import Callable, Iterator
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_FALSE = frozenset({"0", "f", "false", "n", "no"})
_TRUE = frozenset({"1", "t", "true", "y", "yes"})

_Fit = Callable[[str], bool]
_NAMES_LOGIN = ("username", "password")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# TLS parameters: the accepted values, and which of them are safe.
_TLS: dict[str, tuple[_Fit, _Fit]] = {
    **dict.fromkeys(_FILES, (bool, lambda _: True)),
    "ssl_cert_reqs": (lambda v: v in {"required", "none"}, lambda v: v == "required"),
    "ssl_check_hostname": (lambda v: v.lower() in _TRUE | _FALSE, lambda v: v.lower() in _TRUE),
}
PARAMETERS = ("db", *_NAMES_LOGIN, *_TLS)


def check(url: str) -> str:
    """Return the URL.

    :raises ValueError: it is not one; the message does not contain the URL, which may hold a password.
    """
    if "#" in url:
        raise ValueError("has a #: write it as %23")
    if any(character.isspace() for character in url):
        raise ValueError("has white space: write it as %20")
    parts = _split(url)
    if parts.scheme not in {"redis", "rediss", "unix"} or "://" not in url:
        raise ValueError("expected a URL that starts with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if parts.hostname is not None or not parts.path.strip("/"):
            raise ValueError("expected the absolute path of a socket, such as unix:///run/valkey.sock")
    elif parts.hostname is None:
        raise ValueError("expected a URL with an address, and a port from 1 to 65535 if it has one")
    elif parts.path.strip("/") and not parts.path[1:].isdecimal():
        raise ValueError("expected the number of a database behind the port, such as /0")
    _check_parameters(parts)
    return url


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.port == 0:
            raise ValueError
    except ValueError:  # the exception is not chained: its text contains the URL
        raise ValueError("expected a URL with an address, and a port from 1 to 65535 if it has one") from None
    return parts


def _check_parameters(parts: SplitResult) -> None:
    found = _pairs(parts)
    names = [name for name, _ in found]
    for name, value in found:
        if name not in PARAMETERS:
            raise ValueError(f"has an unknown parameter {_shown(name)}: there are {', '.join(PARAMETERS)}")
        if names.count(name) > 1:
            raise ValueError(f"has the parameter {name} twice")
        if name in _TLS and parts.scheme != "rediss":
            raise ValueError(f"has the TLS parameter {name}, but only rediss:// is TLS")
        if not _fits(name, value=value):
            raise ValueError(f"has a wrong value of the parameter {name}")
    if "db" in names and parts.scheme != "unix" and parts.path.strip("/"):
        raise ValueError("names its database twice: behind the port and as db")
    for name, given in (("username", parts.username), ("password", parts.password)):
        if name in names and given:
            raise ValueError(f"has two values of {name}: before the host and as a parameter")


def _fits(name: str, *, value: str) -> bool:
    if name == "db":
        return value.isdecimal()
    return _TLS[name][0](value) if name in _TLS else bool(value)


def _pairs(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)


def _shown(name: str) -> str:
    """A name for an error message; a password with an unescaped ? or & looks like one."""
    return name if name.isidentifier() and name.islower() and len(name) <= 32 and "_" in name else "(not shown)"


def parameters(url: str) -> dict[str, str]:
    """The parameters of a checked URL."""
    return dict(_pairs(urlsplit(url)))


def weakened(url: str) -> Iterator[str]:
    """The parameters of a checked URL that weaken TLS, as `name=value`."""
    for name, value in parameters(url).items():
        if name in _TLS and not _TLS[name][1](value):
            yield f"{name}={value}"


def database(url: str) -> int:
    """The number of the database that a checked URL names."""
    text = parameters(url).get("db") or ("" if url.startswith("unix:") else urlsplit(url).path.strip("/"))
    return int(text or 0)


def passwords(url: str) -> set[str]:
    """The password in a checked URL, as written and percent-decoded."""
    found = {urlsplit(url).password, login(url)[1]}
    return {password for password in found if password}


def login(url: str) -> tuple[str | None, str | None]:
    """User name and password in a checked URL."""
    parts, query = urlsplit(url), parameters(url)
    user, password = (unquote(given) if given else None for given in (parts.username, parts.password))
    return user or query.get("username"), password or query.get("password")

"""What of an address is shown: never what could be a secret, whatever its form and wherever it is shown."""

import asyncio
import io
import logging
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.app.adapter_settings import secrets_of
from router.bus.client.options import BusOptions, connect_arguments
from router.cli.shared.exits import exit_code_of
from router.domain.degraded import Degradable
from router.edge.readiness import Readiness
from router.errors import BusError, InvalidInput, StoreError
from router.logs import configure
from router.redaction import address, redacted
from router.selftest.check import NotChecked, NotSeen
from router.selftest.run import _result
from router.settings import effective, load
from router.store.servers.options import Access

MARK = "S3CR3T"
HARMLESS_LOOKING = "@:/?#[]%&=,;'\"!$.~-_()<>|\\`*+^{}"

schemes = st.sampled_from(["redis", "rediss", "unix", "nats", "tls", "ws", "http", "REDIS", "x-y.z"])
hosts = st.sampled_from(
    ["h", "127.0.0.1:6379", "[::1]:6379", "redis-0.redis.svc:6379/0", "h:1/0?db=1", "/run/s.sock", ""]
)


def around(alphabet: str) -> st.SearchStrategy[str]:
    """The mark within characters that have a meaning in URLs."""
    some = st.text(alphabet, max_size=6)
    return st.tuples(some, some).map(lambda ends: f"{ends[0]}{MARK}{ends[1]}")


secrets = around(HARMLESS_LOOKING)
without_at = around(HARMLESS_LOOKING.replace("@", ""))
names = st.sampled_from(["password", "username", "token", "auth", "pass%77ord", "client_name", "x", "", "db+", "DB"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    """One address with the mark where a secret is."""
    scheme, host, secret, other = draw(schemes), draw(hosts), draw(secrets), draw(without_at)
    forms = [
        f"{scheme}://user:{secret}@{host}",
        f"{scheme}://:{secret}@{host}",
        f"{scheme}://{secret}@{host}",
        f"{scheme}://{secret}:password@{host}",
        f"{scheme}://{secret}:@{host}",
        f"{scheme}://user:{quote(secret, safe='')}@{host}",
        f"{scheme}://{quote(secret, safe='')}@{host}",
        f"{scheme}://h?{draw(names)}={secret}",
        f"{scheme}://h/0?db=1&{draw(names)}={quote(secret, safe='')}&db=2",
        f"{scheme}://u:p@h?password={secret}",
        f"{scheme}://h#{secret}",
        f"{scheme}://user:{other}",
        f"{scheme}://:{other}",
        f"{scheme}://[{secret}",
        f"{scheme}://h:{other}",
    ]
    return draw(st.sampled_from(forms))


lists = st.lists(urls() | st.just("nats://plain:4222"), min_size=1, max_size=3).map(",".join)


@given(lists)
def test_no_secret_of_an_address_is_shown(url: str) -> None:
    """As a value of its own and within a text."""
    assert MARK not in address(url)
    for text in (url, f"cannot reach {url}: refused", f"['{url}', \"{url}\"]", f"a {url}\n{url} b", f"({url})."):
        assert MARK not in redacted(text)


@given(urls(), st.text(" \t\n\u00a0\u2003", min_size=1, max_size=2))
def test_white_space_in_an_address(url: str, space: str) -> None:
    """An address that is known as one is hidden beyond its white space."""
    assert MARK not in address(url.replace(MARK, f"x{space}{MARK}"))


@given(st.text(max_size=40))
def test_a_text_without_an_address_is_left_alone(text: str) -> None:
    """Character by character."""
    plain = text.replace("://", "")
    assert redacted(plain) == plain


@given(lists)
def test_twice_is_once(url: str) -> None:
    """What is shown can pass through a log as well."""
    assert redacted(redacted(url)) == redacted(url)
    assert address(address(url)) == address(url)


@pytest.mark.parametrize(
    "url",
    [
        "nats://a:4222",
        "tls://nats-0.nats.svc:4222",
        "redis://127.0.0.1:6379/0",
        "rediss://[::1]:6379/2?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=none",
        "unix:///run/valkey.sock?db=2",
        "http://collector:4318/v1/traces",
        "nats://a:4222,nats://b:4222",
    ],
)
def test_what_is_no_secret_is_shown(url: str) -> None:
    """Operators need it."""
    assert address(url) == url
    for text in (f"cannot reach {url}: refused", f"'{url}'", f"({url}).", f'{{"url":"{url}"}}'):
        assert redacted(text) == text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@w@h:6379/0", "redis://***@h:6379/0"),
        ("redis://h?password=x&db=1", "redis://h?password=***&db=1"),
        ("nats://token@h:4222,nats://h:4223", "nats://***@h:4222,nats://h:4223"),
        ("redis://u:pa/ss@h", "redis://***"),
        ("not an address", "***"),
    ],
)
def test_how_it_looks(url: str, shown: str) -> None:
    """The rest stays readable."""
    assert address(url) == shown


def in_a_log(text: str) -> str:
    """As message, argument, field and traceback."""
    stream, root = io.StringIO(), logging.getLogger()
    level = root.level
    handler = configure("info", "json", stream=stream)
    try:
        try:
            raise StoreError(text)
        except StoreError:
            logging.getLogger("x").exception("a %s", text, extra={"where": text, "all": [text]})
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return stream.getvalue()


def in_readiness(text: str) -> str:
    """What /readyz shows."""
    readiness = Readiness(["store"])
    readiness.not_ok("store", reason=text)
    readiness.degrade(Degradable.STORE_FACTS, text)
    return f"{readiness.reasons()} {readiness.states()} {readiness.degraded()}"


def in_a_commands_error(text: str) -> str:
    """On standard error."""
    return "".join(exit_code_of(error)[1] for error in (StoreError(text), BusError(text), KeyError(text)))


def in_a_selftest(text: str) -> str:
    """In its table."""

    async def fails(error: Exception) -> str:
        raise error

    async def checks() -> str:
        errors = (StoreError(text), BusError(text), NotSeen(text), NotChecked(text))
        return "".join([(await _result("check", lambda e=e: fails(e))).seen for e in errors])  # type: ignore[misc]

    return asyncio.run(checks())


def in_a_refusal_of_nats(text: str) -> str:
    """Of an address that is none."""
    with pytest.raises(InvalidInput) as refused:
        connect_arguments(BusOptions((f"x{text}",)))
    return str(refused.value)


PLACES: list[Callable[[str], str]] = [
    in_a_log,
    in_readiness,
    in_a_commands_error,
    in_a_selftest,
    in_a_refusal_of_nats,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@given(url=urls())
def test_every_place_shows_addresses_alike(place: Callable[[str], str], url: str) -> None:
    """The mark is nowhere."""
    assert MARK not in place(url)


@given(secrets, st.sampled_from(["{}://u:{}@h:1", "{}://:{}@h:1", "{}://{}@h:1", "{}://h:1?password={}"]))
def test_settings_are_shown_without_what_their_urls_hold(secret: str, form: str) -> None:
    """`router config`, and the secrets that the log removes wherever they appear."""
    encoded = quote(secret, safe="")
    environ = {
        "ROUTER_REDIS_URL": form.format("redis", encoded),
        "ROUTER_REDIS_REPLICA_URL": form.format("redis", encoded),
        "ROUTER_OTLP_ENDPOINT": form.format("http", encoded),
    }
    if "?" not in form:
        environ["ROUTER_NATS_URL"] = form.format("nats", encoded)
    settings = load(environ)
    assert MARK not in "".join(f"{row.value}{row.default}" for row in effective(settings))
    if "u:" in form or "password" in form:
        assert secret in secrets_of(settings)


def test_connection_options_in_a_traceback_hold_no_login() -> None:
    """What Python prints of them."""
    bus = BusOptions((f"nats://u:{MARK}@host:4222",), user="u", password=MARK, token=MARK, creds=MARK, nkey_seed=MARK)
    assert MARK not in repr((bus, Access("u", MARK)))

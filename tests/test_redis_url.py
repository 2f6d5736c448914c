"""Redis URLs: what is accepted, what is refused by name, and what weakens TLS."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.app.pod import Pod
from router.errors import InvalidInput
from router.settings import load, redis_url

FILE = __file__


def refused(**environ: str) -> str:
    """Why."""
    with pytest.raises(InvalidInput) as problem:
        load(environ)
    return str(problem.value)


@pytest.mark.parametrize(
    ("url", "database", "login"),
    [
        ("redis://r", 0, (None, None)),
        ("redis://r:6379/3", 3, (None, None)),
        ("redis://[::1]:6379/", 0, (None, None)),
        ("redis://r?db=4", 4, (None, None)),
        ("redis://:p%40w@r:6379/0", 0, (None, "p@w")),
        ("redis://u:p@w@r", 0, ("u", "p@w")),
        ("redis://r?username=u&password=p%26w", 0, ("u", "p&w")),
        ("rediss://r/1?ssl_cert_reqs=required&ssl_check_hostname=true", 1, (None, None)),
        ("unix:///run/valkey.sock", 0, (None, None)),
        ("unix://u:p@/run/valkey.sock?db=2", 2, ("u", "p")),
    ],
)
def test_what_is_accepted(url: str, database: int, login: tuple[str | None, str | None]) -> None:
    """Every form, with what it says."""
    assert load({"ROUTER_REDIS_URL": url}).redis_url == url
    assert redis_url.database(url) == database
    assert redis_url.login(url) == login
    assert [*redis_url.weakened(url)] == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://r?socket_timeout=9", "unknown parameter socket_timeout"),
        ("redis://r?ssl=true", "unknown parameter"),
        ("rediss://r?ssl_cert_req=none", "unknown parameter ssl_cert_req"),
        ("rediss://r?SSL_CERT_REQS=none", "unknown parameter"),
        ("rediss://r?ssl_ciphers=ALL:@SECLEVEL=0", "unknown parameter ssl_ciphers"),
        ("rediss://r?ssl_exclude_verify_flags=VERIFY_X509_STRICT", "unknown parameter ssl_exclude_verify_flags"),
        ("rediss://r?ssl_min_version=769", "unknown parameter ssl_min_version"),
        ("rediss://r?protocol=3", "unknown parameter"),
        ("rediss://r?ssl_cert_reqs=", "wrong value of the parameter ssl_cert_reqs"),
        ("rediss://r?ssl_cert_reqs=optional", "wrong value of the parameter ssl_cert_reqs"),
        ("rediss://r?ssl_check_hostname=maybe", "wrong value of the parameter ssl_check_hostname"),
        ("rediss://r?ssl_cert_reqs=required&ssl_cert_reqs=none", "parameter ssl_cert_reqs twice"),
        ("redis://r?ssl_cert_reqs=none", "only rediss:// is TLS"),
        ("redis://r?ssl_ca_certs=/x", "only rediss:// is TLS"),
        ("unix:///s?ssl_ca_certs=/x", "only rediss:// is TLS"),
        ("redis://r/x", "number of a database"),
        ("redis://r/0/1", "number of a database"),
        ("redis://r/1?db=2", "names its database twice"),
        ("redis://r?db=x", "wrong value of the parameter db"),
        ("redis://:a@r?password=b", "two values of password"),
        ("redis://:pa#ss@r", "has a #"),
        ("redis://r#", "has a #"),
        ("redis://", "expected a URL with an address"),
        ("redis://r:0", "expected a URL with an address"),
        ("redis://u:p[@r", "expected a URL with an address"),
        ("redis:r", "expected a URL"),
        ("http://r", "expected a URL that starts with"),
        ("unix://run/valkey.sock", "absolute path"),
        ("unix:///", "absolute path"),
    ],
)
def test_what_is_refused(url: str, why: str) -> None:
    """Each mistake by its name, for the replica, too."""
    assert why in refused(ROUTER_REDIS_URL=url)
    assert why in refused(ROUTER_REDIS_REPLICA_URL=url)


@pytest.mark.parametrize("parameter", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_check_hostname=No"])
@pytest.mark.parametrize("variable", ["ROUTER_REDIS_URL", "ROUTER_REDIS_REPLICA_URL"])
def test_what_weakens_tls_needs_a_permit(parameter: str, variable: str) -> None:
    """The refusal names the parameter and the permit; %-encoding hides nothing."""
    encoded = "".join(f"%{ord(c):02X}" for c in parameter.partition("=")[0]) + "=" + parameter.partition("=")[2]
    for text in (parameter, encoded):
        environ = {variable: f"rediss://r:6379?{text}"}
        why = refused(**environ)
        assert f"{variable}: weakens TLS by {parameter}" in why
        assert "ROUTER_REDIS_TLS_INSECURE=true" in why
        load(environ | {"ROUTER_REDIS_TLS_INSECURE": "true"})


async def test_what_weakens_tls_is_logged_at_each_start(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A warning names the variable and the parameter."""
    settings = load(
        {
            "ROUTER_REDIS_URL": "rediss://127.0.0.1:1?ssl_cert_reqs=none",
            "ROUTER_REDIS_TLS_INSECURE": "true",
            "ROUTER_NATS_URL": "nats://127.0.0.1:1",
            "ROUTER_HTTP_HOST": "127.0.0.1",
            "ROUTER_HTTP_PORT": "0",
            "ROUTER_DRAIN_TIMEOUT": "1s",
        }
    )
    pod = Pod(settings)
    with caplog.at_level(logging.WARNING, "router.app.pod"):
        await pod.start()
        await pod.stop()
    assert any("ROUTER_REDIS_URL: ssl_cert_reqs=none" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        (
            {"ROUTER_REDIS_TLS_CERT": FILE, "ROUTER_REDIS_URL": "rediss://r"},
            "ROUTER_REDIS_TLS_CERT: certificate and key",
        ),
        (
            {"ROUTER_REDIS_TLS_KEY": FILE, "ROUTER_REDIS_URL": "rediss://r"},
            "ROUTER_REDIS_TLS_CERT: certificate and key",
        ),
        ({"ROUTER_REDIS_TLS_CA": FILE}, "ROUTER_REDIS_TLS_CA: works only over TLS"),
        ({"ROUTER_REDIS_TLS_CA": FILE, "ROUTER_REDIS_URL": "unix:///s"}, "ROUTER_REDIS_TLS_CA: works only over TLS"),
        (
            {"ROUTER_REDIS_TLS_CA": FILE, "ROUTER_REDIS_URL": "rediss://r?ssl_ca_certs=/x"},
            "ROUTER_REDIS_TLS_CA: the URL has ssl_ca_certs too",
        ),
        (
            {"ROUTER_REDIS_URL": "rediss://r", "ROUTER_REDIS_REPLICA_URL": "redis://s"},
            "ROUTER_REDIS_REPLICA_URL: has no TLS",
        ),
        ({"ROUTER_REDIS_USERNAME": "a", "ROUTER_REDIS_URL": "redis://b:c@r"}, "ROUTER_REDIS_USERNAME: the URL has"),
        (
            {"ROUTER_REDIS_PASSWORD": "a", "ROUTER_REDIS_URL": "redis://r?password=c"},
            "ROUTER_REDIS_PASSWORD: the URL has",
        ),
        (
            {"ROUTER_REDIS_CLUSTER": "true", "ROUTER_REDIS_URL": "unix:///s"},
            "ROUTER_REDIS_URL: a cluster has no socket",
        ),
        (
            {"ROUTER_REDIS_CLUSTER": "true", "ROUTER_REDIS_URL": "redis://r?db=1"},
            "ROUTER_REDIS_URL: a cluster has only",
        ),
    ],
)
def test_contradictions(environ: dict[str, str], why: str) -> None:
    """Each names the variable to change."""
    assert why in refused(**environ)


@given(st.text(min_size=8, max_size=20, alphabet="abcXYZ0189:@/?#[]%&= .;"))
def test_no_refusal_repeats_what_could_be_a_password(password: str) -> None:
    """Whatever is wrong with the URL, its text is not in the message."""
    for url in (f"redis://u:{password}@r:6379/0", f"redis://r?password={password}", f"redis://{password}"):
        try:
            load({"ROUTER_REDIS_URL": url})
        except InvalidInput as problem:
            text = str(problem)
            assert password not in text or password.strip(" ./:?") in {"", "redis"}

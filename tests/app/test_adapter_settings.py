"""Settings reach the adapters under their own names."""

from pathlib import Path

import pytest

from router.app.adapter_settings import bus_options, decide_settings
from router.app.redis_nodes import redis_access
from router.settings import load


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Existing files, by name: settings refuse paths of files that are missing."""
    for name in ("ca", "cert", "key", "creds"):
        (tmp_path / name).touch()
    return {path.name: str(path) for path in tmp_path.iterdir()}


def test_every_nats_setting_reaches_its_option(files: dict[str, str]) -> None:
    """User, secrets and files differ from each other, so that no two can be swapped unnoticed."""
    options = bus_options(
        load(
            {
                "ROUTER_NATS_URL": "tls://127.0.0.1:4222",
                "ROUTER_NATS_USER": "user",
                "ROUTER_NATS_PASSWORD": "password",
                "ROUTER_NATS_TLS_CA": files["ca"],
                "ROUTER_NATS_TLS_CERT": files["cert"],
                "ROUTER_NATS_TLS_KEY": files["key"],
            }
        )
    )
    assert (options.user, options.password) == ("user", "password")
    assert (options.tls_ca, options.tls_cert, options.tls_key) == (files["ca"], files["cert"], files["key"])


def test_token_and_credentials_reach_their_options(files: dict[str, str]) -> None:
    """A token is a token, a credentials file is a file."""
    assert bus_options(load({"ROUTER_NATS_TOKEN": "secret"})).token == "secret"  # noqa: S105 - not one of ours
    assert bus_options(load({"ROUTER_NATS_CREDS_FILE": files["creds"]})).creds == files["creds"]


def test_every_redis_setting_reaches_its_option(files: dict[str, str]) -> None:
    """The user's name, the password and the TLS files of Redis."""
    environ = {
        "ROUTER_REDIS_URL": "rediss://127.0.0.1:6379",
        "ROUTER_REDIS_USERNAME": "user",
        "ROUTER_REDIS_PASSWORD": "password",
        "ROUTER_REDIS_TLS_CA": files["ca"],
        "ROUTER_REDIS_TLS_CERT": files["cert"],
        "ROUTER_REDIS_TLS_KEY": files["key"],
    }
    access = redis_access(load(environ))
    assert (access.username, access.password) == ("user", "password")
    assert (access.tls_ca, access.tls_cert, access.tls_key) == (files["ca"], files["cert"], files["key"])


def test_results_may_go_to_inboxes_of_the_accounts_prefix() -> None:
    """A prefix of the account's own is allowed beside the usual one; a list of prefixes stands for both."""
    own = {"ROUTER_NATS_INBOX_PREFIX": "_ROUTER.inbox"}
    assert decide_settings(load({})).result_subject_prefixes == ("_INBOX.",)
    assert decide_settings(load(own)).result_subject_prefixes == ("_INBOX.", "_ROUTER.inbox.")
    listed = {**own, "ROUTER_REPLY_PREFIXES": "theirs."}
    assert decide_settings(load(listed)).result_subject_prefixes == ("theirs.",)

"""The environment is read once, all at once, and nothing in it is guessed."""

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.app.adapter_settings import admin_tokens, secrets_of
from router.bus.client.options import BusOptions, connect_arguments
from router.domain.roles import Holder, Role
from router.errors import InvalidInput, Problem
from router.settings import Row, Settings, effective, load, reference, variable
from router.settings.types import duration_text

TOKEN = "0123456789abcdef-admin"  # noqa: S105 - a test's own


def problems_of(**variables: str) -> dict[str, Problem]:
    """What `load` refuses, by variable."""
    with pytest.raises(InvalidInput) as caught:
        load(variables)
    return {p.path: p for p in caught.value.problems}


def row(settings: Settings, name: str) -> Row:
    """One row of the effective settings."""
    return next(r for r in effective(settings) if r.variable == name)


def test_an_empty_environment_is_enough() -> None:
    """Every setting has a default, and the defaults do not contradict each other."""
    settings = load({})
    assert settings.partitions == 64
    assert settings.pod_name == socket.gethostname()


def test_other_variables_are_nobodys_business() -> None:
    """Only ROUTER_* is ours."""
    assert load({"PATH": "/bin", "HTTP_PORT": "x", "OTEL_SERVICE_NAME": "y"}) == load({})


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    """A typo is not a default in disguise."""
    problem = problems_of(ROUTER_HTTP_PROT="8080")["ROUTER_HTTP_PROT"]
    assert "no such setting" in problem.message
    assert "ROUTER_HTTP_PORT" in problem.hint


def test_a_name_like_no_other_gets_no_wild_guess() -> None:
    """All names share ROUTER_; that alone is no likeness."""
    assert "did you mean" not in problems_of(ROUTER_NOPE="1")["ROUTER_NOPE"].hint


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ROUTER_HTTP_PORT", "99999", "must be at most 65535"),
        ("ROUTER_DEADLINE_MAX", "25h", "must be at most 1d"),
        ("ROUTER_BATCH_MAX_BYTES", "1", "must be at least 64KiB"),
        ("ROUTER_PARTITIONS", "x", "must be a whole number"),
        ("ROUTER_REDIS_CLUSTER", "maybe", "must be true or false"),
        ("ROUTER_ON_STORE_ERROR", "open", "must be 'deny' or 'allow'"),
        ("ROUTER_POD_NAME", "a b", "must match ^[A-Za-z0-9_.-]{1,255}$"),
        ("ROUTER_ADMIN_TOKEN", "short", "must have at least 16 characters"),
        ("ROUTER_NATS_URL", "localhost", "expected a URL that starts with nats:// or tls://"),
        ("ROUTER_NATS_TLS_CA", "/nope", "there is no file /nope"),
        ("ROUTER_DEADLINE_FACTOR", "inf", "must be a finite number"),
    ],
)
def test_each_mistake_has_its_own_words(name: str, value: str, message: str) -> None:
    """One problem, which says what would be right."""
    with pytest.raises(InvalidInput) as caught:
        load({name: value})
    assert caught.value.problems == [Problem(name, message=message)]


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("nats://a:4222", True),
        ("tls://a", True),
        ("nats://a,nats://b:4223", True),
        ("ws://a:8080", False),
        ("wss://a:8080", False),
        ("nats://a,wss://b", False),
        ("http://a", False),
        ("NATS://a", False),
        ("nats:a", False),
        ("//a:4222", False),
    ],
)
def test_every_scheme_of_nats_is_connected_to_or_refused_by_name(url: str, accepted: bool) -> None:
    """What the settings accept the client accepts; anything else names the variable, and the schemes there are."""
    if accepted:
        connect_arguments(BusOptions(load({"ROUTER_NATS_URL": url}).nats_url))
        return
    with pytest.raises(InvalidInput) as caught:
        load({"ROUTER_NATS_URL": url})
    (problem,) = caught.value.problems
    assert problem.path == "ROUTER_NATS_URL"
    assert "starts with nats:// or tls://" in problem.message


def test_a_units_suffix_in_the_name_leads_to_the_right_name() -> None:
    """ROUTER_CP_GRACE_S is a likely guess."""
    assert "ROUTER_CP_GRACE?" in problems_of(ROUTER_CP_GRACE_S="5")["ROUTER_CP_GRACE_S"].hint


def test_all_problems_come_at_once() -> None:
    """Unknown name, bad value, bad file and contradiction in one answer."""
    found = problems_of(
        ROUTER_NOPE_NOPE_NOPE="1",
        ROUTER_PARTITIONS="many",
        ROUTER_STORE_DEADLINE="soon",
        ROUTER_ADMIN_TOKEN_FILE="/nowhere/at/all",  # noqa: S106 - a path
        ROUTER_TOMBSTONE_TTL="10m",
    )
    assert set(found) == {
        "ROUTER_NOPE_NOPE_NOPE",
        "ROUTER_PARTITIONS",
        "ROUTER_STORE_DEADLINE",
        "ROUTER_ADMIN_TOKEN_FILE",
        "ROUTER_TOMBSTONE_TTL",
    }


def test_a_bad_value_is_not_blamed_for_a_contradiction_too() -> None:
    """What its default would contradict is nobody's question."""
    found = problems_of(ROUTER_DEADLINE_LEAST="2m", ROUTER_DEADLINE_MOST="long", ROUTER_DEADLINE_MAX="10m")
    assert set(found) == {"ROUTER_DEADLINE_MOST"}


@pytest.mark.parametrize(
    "environ",
    [
        {"ROUTER_PORT": "tcp://10.96.0.7:8080"},
        {"ROUTER_SERVICE_HOST": "10.96.0.7"},
        {"ROUTER_SERVICE_PORT": "8080"},
        {"ROUTER_SERVICE_PORT_HTTP": "8080"},
        {"ROUTER_API_PORT": "tcp://10.96.0.7:8081"},
        {"ROUTER_API_SERVICE_HOST": "10.96.0.7"},
        {"ROUTER_API_PORT_8081_TCP_ADDR": "10.96.0.7"},
        {"ROUTER_PORT_8080_TCP": "tcp://10.96.0.7:8080"},
        {"ROUTER_PORT_8080_TCP_PROTO": "tcp"},
        {"ROUTER_PORT_8080_TCP_PORT": "8080"},
        {"ROUTER_PORT_8080_TCP_ADDR": "10.96.0.7"},
        {"ROUTER_REDIS_SERVICE_HOST": "10.96.0.8"},
        {"ROUTER_REDIS_PORT": "tcp://10.96.0.8:6379"},
        {"ROUTER_HTTP_PORT": "tcp://10.96.0.9:80"},
    ],
    ids=lambda e: next(iter(e)),
)
def test_what_kubernetes_injects_is_ignored(environ: dict[str, str]) -> None:
    """A Service called router (or router-redis, router-http) must not stop the pod, nor set anything."""
    assert load(environ) == load({})


def test_a_port_that_is_not_injected_is_read() -> None:
    """Ignoring tcp:// values does not ignore the setting of the same name."""
    assert load({"ROUTER_HTTP_PORT": "9000"}).http_port == 9000


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """The trailing newline of an editor or of kubectl is not part of it."""
    (tmp_path / "token").write_text(TOKEN + "\n")
    token = load({"ROUTER_ADMIN_TOKEN_FILE": str(tmp_path / "token")}).admin_token
    assert token is not None
    assert token.get_secret_value() == TOKEN


def test_a_secret_from_both_is_refused(tmp_path: Path) -> None:
    """Neither silently wins."""
    (tmp_path / "token").write_text(TOKEN)
    found = problems_of(ROUTER_ADMIN_TOKEN=TOKEN, ROUTER_ADMIN_TOKEN_FILE=str(tmp_path / "token"))
    assert "only one" in found["ROUTER_ADMIN_TOKEN_FILE"].hint


def test_an_empty_secret_file_is_refused(tmp_path: Path) -> None:
    """A secret that was not mounted yet is no secret."""
    (tmp_path / "token").write_text("\n")
    assert "empty" in problems_of(ROUTER_ADMIN_TOKEN_FILE=str(tmp_path / "token"))["ROUTER_ADMIN_TOKEN_FILE"].message


def test_only_secrets_have_a_file_form() -> None:
    """ROUTER_HTTP_PORT_FILE is a typo."""
    assert "no such setting" in problems_of(ROUTER_HTTP_PORT_FILE="/x")["ROUTER_HTTP_PORT_FILE"].message


def test_a_bad_secret_is_not_repeated_in_the_error() -> None:
    """Errors go to logs."""
    assert "hunter2" not in str(problems_of(ROUTER_VIEWER_TOKEN="hunter2"))  # noqa: S106 - a test's own


def test_secrets_never_show(tmp_path: Path) -> None:
    """Neither as a setting, nor inside a URL, nor in the repr."""
    settings = load(
        {
            "ROUTER_ADMIN_TOKEN": TOKEN,
            "ROUTER_NATS_URL": "nats://u:hunter2@a:4222,nats://b:4222",
            "ROUTER_REDIS_URL": "redis://:hunter2@c:6379/0",
        }
    )
    shown = str(effective(settings))
    assert TOKEN not in shown
    assert "hunter2" not in shown
    assert TOKEN not in repr(settings)
    assert row(settings, "ROUTER_NATS_URL").value == "nats://***@a:4222,nats://b:4222"


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("90s", 90), ("2m", 120), ("1h", 3600), ("2000ms", 2), ("1d", 86400)]
)
def test_durations_carry_their_unit(text: str, expected: int) -> None:
    """A bare number is in the documented unit."""
    assert load({"ROUTER_CP_GRACE": text}).cp_grace_s == expected


@pytest.mark.parametrize("text", ["1.5s", "-1", "soon", "1 year", "10ms", "1e3", "60S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Also one that would have to be rounded."""
    assert set(problems_of(ROUTER_CP_GRACE=text)) == {"ROUTER_CP_GRACE"}


def test_sizes_carry_their_unit() -> None:
    """64KiB is 65536."""
    assert load({"ROUTER_BATCH_MAX_BYTES": "64KiB"}).batch_max_bytes == 65536


def test_lists_are_comma_separated() -> None:
    """Blanks around an item do not count."""
    assert load({"ROUTER_ALLOWED_TENANTS": "acme, globex"}).allowed_tenants == ("acme", "globex")


@pytest.mark.parametrize("text", ["acme,,globex", "acme,acme", "acme,bad tenant", ","])
def test_a_bad_list_is_refused(text: str) -> None:
    """Empty items, repeats and names that no tenant can have."""
    assert set(problems_of(ROUTER_ALLOWED_TENANTS=text)) == {"ROUTER_ALLOWED_TENANTS"}


def test_at_most_a_hundred_tenants_get_a_label() -> None:
    """Labels are bounded by refusal, not by cutting the list."""
    many = ",".join(f"t{i}" for i in range(101))
    assert set(problems_of(ROUTER_METRICS_TENANTS=many)) == {"ROUTER_METRICS_TENANTS"}


def test_an_empty_variable_is_not_set() -> None:
    """Compose files pass ${X:-} for what is not given."""
    assert load({"ROUTER_NATS_USER": "", "ROUTER_HTTP_PORT": ""}) == load({})


@pytest.mark.parametrize(
    ("environ", "blamed"),
    [
        ({"ROUTER_STREAM_USAGE_DEDUP": "8d", "ROUTER_TOMBSTONE_TTL": "9d"}, "ROUTER_STREAM_USAGE_DEDUP"),
        ({"ROUTER_STREAM_USAGE_DEDUP": "30s"}, "ROUTER_STREAM_USAGE_DEDUP"),
        ({"ROUTER_STREAM_ASSIGN_DEDUP": "2h"}, "ROUTER_STREAM_ASSIGN_DEDUP"),
        ({"ROUTER_STREAM_ASSIGN_MAX_AGE": "1h", "ROUTER_DEADLINE_MAX": "2h"}, "ROUTER_STREAM_ASSIGN_MAX_AGE"),
        ({"ROUTER_TOMBSTONE_TTL": "1h"}, "ROUTER_TOMBSTONE_TTL"),
        ({"ROUTER_STREAM_RESULT_MAX_AGE": "2h"}, "ROUTER_TOMBSTONE_TTL"),
        ({"ROUTER_STREAM_USAGE_DEDUP": "2h"}, "ROUTER_TOMBSTONE_TTL"),
        ({"ROUTER_STREAM_DLQ_NAME": "ALERT"}, "ROUTER_STREAM_DLQ_NAME"),
        ({"ROUTER_DEADLINE_LEAST": "2m"}, "ROUTER_DEADLINE_LEAST"),
        ({"ROUTER_DEADLINE_MAX": "30s"}, "ROUTER_DEADLINE_MOST"),
        ({"ROUTER_NATS_USER": "u"}, "ROUTER_NATS_USER"),
        ({"ROUTER_NATS_USER": "u", "ROUTER_NATS_PASSWORD": "p", "ROUTER_NATS_TOKEN": "t"}, "ROUTER_NATS_USER"),
        ({"ROUTER_REDIS_CLUSTER": "true", "ROUTER_REDIS_URL": "redis://r:6379/3"}, "ROUTER_REDIS_URL"),
        ({"ROUTER_REDIS_URL": "redis://:a@r:6379", "ROUTER_REDIS_PASSWORD": "b"}, "ROUTER_REDIS_PASSWORD"),
        ({"ROUTER_POLICY_SOURCE": "files"}, "ROUTER_POLICY_DIR"),
        ({"ROUTER_ASSIGN_SUBJECTS": "caf.exec.>"}, "ROUTER_ASSIGN_SUBJECTS"),
        ({"ROUTER_ASSIGN_SUBJECTS": "caf.exec.result.v1"}, "ROUTER_ASSIGN_SUBJECTS"),
        ({"ROUTER_ASSIGN_SUBJECTS": "caf.exec.gpu.dlq"}, "ROUTER_ASSIGN_SUBJECTS"),
        ({"ROUTER_RESULT_SUBJECT_PREFIXES": "results"}, "ROUTER_RESULT_SUBJECT_PREFIXES"),
        ({"ROUTER_RESULT_SUBJECT_PREFIXES": "beamline."}, "ROUTER_RESULT_SUBJECT_PREFIXES"),
        ({"ROUTER_RESULT_SUBJECT_PREFIXES": "caf.exec.done."}, "ROUTER_RESULT_SUBJECT_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "_INBOX"}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "$JS.API."}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "_ACME.*."}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "_ACME.,caf."}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "beamline.usage.v1.metered."}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "hub.", "ROUTER_NATS_JS_API_PREFIX": "hub.js"}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_REPLY_PREFIXES": "hub.js.STREAM.", "ROUTER_NATS_JS_API_PREFIX": "hub.js"}, "ROUTER_REPLY_PREFIXES"),
        ({"ROUTER_NATS_JS_API_PREFIX": "_INBOX.js"}, "ROUTER_NATS_JS_API_PREFIX"),
        ({"ROUTER_NATS_JS_API_PREFIX": "_INBOX"}, "ROUTER_NATS_JS_API_PREFIX"),
        ({"ROUTER_NATS_JS_API_PREFIX": "_R_.hub.API"}, "ROUTER_NATS_JS_API_PREFIX"),
        (
            {"ROUTER_RESULT_SUBJECT_PREFIXES": "hub.js.", "ROUTER_NATS_JS_API_PREFIX": "hub.js"},
            "ROUTER_RESULT_SUBJECT_PREFIXES",
        ),
        ({"ROUTER_ADMIN_TOKEN": TOKEN, "ROUTER_VIEWER_TOKEN": TOKEN}, "ROUTER_ADMIN_TOKEN"),
        ({"ROUTER_REDIS_URL": "http://r:6379"}, "ROUTER_REDIS_URL"),
        ({"ROUTER_CP_MAX_AGE": "0"}, "ROUTER_CP_MAX_AGE"),
        ({"ROUTER_TRACE_SAMPLE_RATIO": "nan"}, "ROUTER_TRACE_SAMPLE_RATIO"),
        ({"ROUTER_API": "on"}, "ROUTER_API_KEYS_FILE"),
        ({"ROUTER_API_AUTH": "open", "ROUTER_API_KEYS_FILE": "/keys"}, "ROUTER_API_KEYS_FILE"),
        ({"ROUTER_API_HOSTS": "router.internal"}, "ROUTER_API_HOSTS"),
        ({"ROUTER_API_TLS_CERT": __file__}, "ROUTER_API_TLS_CERT"),
        ({"ROUTER_API_TLS_CLIENT_CA": __file__}, "ROUTER_API_TLS_CLIENT_CA"),
        ({"ROUTER_API": "on", "ROUTER_API_AUTH": "open", "ROUTER_API_PORT": "8080"}, "ROUTER_API_PORT"),
        ({"ROUTER_API_CORS_ORIGINS": "console.example"}, "ROUTER_API_CORS_ORIGINS"),
        ({"ROUTER_API_CORS_ORIGINS": "https://console.example/path"}, "ROUTER_API_CORS_ORIGINS"),
        ({"ROUTER_API_CORS_ORIGINS": "*", "ROUTER_API_AUTH": "open"}, "ROUTER_API_CORS_ORIGINS"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_contradictions_and_bounds_are_refused(environ: dict[str, str], blamed: str) -> None:
    """Each names the variable to change."""
    assert blamed in problems_of(**environ)


def test_the_work_items_outlive_the_longest_deadline_by_default() -> None:
    """max(1 h, 2 × ROUTER_DEADLINE_MAX)."""
    assert load({}).assign_max_age_s == 3600
    assert load({"ROUTER_DEADLINE_MAX": "3h"}).assign_max_age_s == 6 * 3600


def test_every_setting_is_in_the_reference_with_a_description() -> None:
    """Nothing is undocumented, and no group is forgotten."""
    rows = reference()
    assert {r.variable for r in rows} == {variable(f) for f in Settings.model_fields}
    assert all(r.description and r.group for r in rows)


@given(st.integers(1, 10**12), st.sampled_from(["ms", "s"]))
def test_a_duration_reads_back_as_written(value: int, unit: str) -> None:
    """What `router config` prints can be set again."""
    factor = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    text = duration_text(value, unit)
    digits = "".join(c for c in text if c.isdigit())
    assert int(digits) * factor[text.removeprefix(digits)] == value * factor[unit]


def test_tokens_of_named_people_come_from_a_file(tmp_path: Path) -> None:
    """One a line, as a mounted secret has them; none of them is shown, and all are known to the log's redactor."""
    (tmp_path / "tokens").write_text(f"alice:operator:{TOKEN}\nbob:viewer:{TOKEN}:with-colon\n")
    settings = load({"ROUTER_ADMIN_TOKENS_FILE": str(tmp_path / "tokens")})
    assert row(settings, "ROUTER_ADMIN_TOKENS").value == "***"
    assert set(secrets_of(settings)) == {TOKEN, f"{TOKEN}:with-colon"}
    holders = [admin_tokens(settings).holder(t) for t in (TOKEN, f"{TOKEN}:with-colon", "alice")]
    assert holders == [Holder("alice", Role.OPERATOR), Holder("bob", Role.VIEWER), None]


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ("alice", "entry 1 is not principal:role:token"),
        (f"alice:operator:{TOKEN},bob:boss:{TOKEN}1", "entry 2 has an unknown role"),
        ("alice:operator:short", "fewer than 16 characters"),
        (f"alice:operator:{TOKEN} bob:viewer:{TOKEN}", "the token of entry 2 is also the token of an earlier one"),
        (f":operator:{TOKEN}", "entry 1 is not"),
    ],
)
def test_bad_tokens_are_told_without_them(entries: str, complaint: str) -> None:
    """The message names the entry and the mistake, never a token."""
    problem = problems_of(ROUTER_ADMIN_TOKENS=entries)["ROUTER_ADMIN_TOKENS"]
    assert complaint in problem.message
    assert TOKEN not in str(problem)
    assert "short" not in str(problem)


def test_one_token_has_one_holder() -> None:
    """A person's token that is a role's too would make the audit lie."""
    found = problems_of(ROUTER_ADMIN_TOKENS=f"alice:operator:{TOKEN}", ROUTER_ADMIN_TOKEN=TOKEN)
    assert "the token of alice is also the token of a role" in found["ROUTER_ADMIN_TOKENS"].message


def test_the_principal_is_the_user_unless_named() -> None:
    """ROUTER_PRINCIPAL, else the name at the operating system; control characters are refused."""
    assert load({}).principal
    assert load({"ROUTER_PRINCIPAL": "deploy bot"}).principal == "deploy bot"
    assert "ROUTER_PRINCIPAL" in problems_of(ROUTER_PRINCIPAL="a\nb")

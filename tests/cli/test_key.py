"""`router key`: the file has hashes only, changes are whole, and mistakes name the option."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from router.cli.shared.exits import Exit
from router.domain.api_key import ApiRole, Asker
from router.edge.api.key_file import KeyFile, new_key
from router.wire.api_keys import digest_of
from tests.cli.conftest import Run


def test_a_key_is_printed_once_and_kept_as_a_hash(run: Run, tmp_path: Path) -> None:
    """Standard output is the key alone, so that a script can take it."""
    made = run("key", "create", "billing", "--tenant", "acme", "--file", "keys.json")
    (key,) = KeyFile(tmp_path / "keys.json").entries()
    text = made.out.strip()
    assert key.digest == digest_of(text)
    assert key.asker == Asker("billing", ApiRole.CALLER, frozenset({"acme"}))
    assert text not in (tmp_path / "keys.json").read_text()
    assert text not in run("key", "list", "--file", "keys.json").out


def test_the_file_is_its_owners_only(run: Run, tmp_path: Path) -> None:
    """Also after a second change."""
    for name in ("a", "b"):
        run("key", "create", name, "--all-tenants", "--file", "keys.json")
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["keys.json"]


def test_a_revoked_key_is_gone(run: Run, tmp_path: Path) -> None:
    """The others stay; a second time it is not there."""
    for name in ("a", "b"):
        run("key", "create", name, "--role", "viewer", "--all-tenants", "--file", "keys.json")
    own_id = KeyFile(tmp_path / "keys.json").entries()[0].id
    assert run("key", "revoke", own_id, "--file", "keys.json").code == Exit.OK
    assert [key.asker.principal for key in KeyFile(tmp_path / "keys.json").entries()] == ["b"]
    assert run("key", "revoke", own_id, "--file", "keys.json").code == Exit.NEGATIVE


def test_the_file_may_be_named_by_the_setting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod has it."""
    monkeypatch.setenv("ROUTER_API_KEYS_FILE", str(tmp_path / "folder" / "keys.json"))
    assert run("key", "create", "a", "--all-tenants", "--json").code == Exit.OK
    (shown,) = orjson.loads(run("key", "list", "--json").out)
    assert (shown["principal"], shown["role"], shown["tenants"]) == ("a", "caller", ["*"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("a",), "--tenant"),
        (("a", "--tenant", "t", "--all-tenants"), "--tenant"),
        (("a", "--tenant", "a b"), "--tenant"),
        (("a", "--tenant", "a..b"), "--tenant"),
        (("a", "--all-tenants", "--role", "root"), "--role"),
        (("a\nb", "--all-tenants"), "principal"),
    ],
)
def test_a_mistake_names_the_option(run: Run, tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    """And nothing is written."""
    refused = run("key", "create", *arguments, "--file", "keys.json")
    assert (refused.code, named in refused.err) == (Exit.USAGE, True), refused.err
    assert not (tmp_path / "keys.json").exists()


def test_without_a_file_the_error_says_how_to_name_one(run: Run) -> None:
    """No key is made for nothing."""
    refused = run("key", "create", "a", "--all-tenants")
    assert (refused.code, "ROUTER_API_KEYS_FILE" in refused.err) == (Exit.USAGE, True)


def test_a_broken_file_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    """Somebody has to look at it."""
    (tmp_path / "keys.json").write_text("{")
    assert run("key", "create", "a", "--all-tenants", "--file", "keys.json").code == Exit.USAGE
    assert (tmp_path / "keys.json").read_text() == "{"


def test_commands_at_once_lose_no_key(tmp_path: Path) -> None:
    """Each reads what the one before has written."""
    file = KeyFile(tmp_path / "keys.json")
    keys = [new_key(Asker(f"p{n}", ApiRole.CALLER, None))[0] for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(file.add, keys))
    assert {key.id for key in file.entries()} == {key.id for key in keys}

"""Scripts as data: headers that are held against key table and callers, golden SHAs."""

from pathlib import Path

import pytest

from router.resources import lua_dir
from router.store.decisions import decide_script
from router.store.flatten import ScriptMismatchError
from router.store.keys import KEYS
from router.store.scripts import _header, load
from router.store.tasks import claim_script, settle_script
from tests.store.update_shas import GOLDEN, shas

NAMES = sorted(p.stem for p in lua_dir().glob("*.lua"))
GOOD = """#!lua
-- good: a script for tests
-- KEYS
--   due             <schema>:{p}:~:due
-- ARGV
--   lease_ms        how long
-- RETURNS
--   0 claimed       nothing more
-- GUARANTEES
--   none
--- @include clock
return { 0 }
"""


def written(folder: Path, text: str) -> Path:
    """A folder with that script and a clock."""
    (folder / "include").mkdir(exist_ok=True)
    (folder / "include" / "clock.lua").write_text("-- the clock\n")
    (folder / "good.lua").write_text(text)
    return folder


def test_every_changed_script_is_visible() -> None:
    """The SHAs are those of golden_shas.txt. After a change that is meant: `python -m tests.store.update_shas`."""
    assert shas() == GOLDEN.read_text(), (
        "scripts changed: if they were meant to, run `python -m tests.store.update_shas`"
    )


def test_the_golden_shas_are_those_that_pods_send() -> None:
    """What the loader makes of a file is what the golden file names."""
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    for script in (decide_script(), settle_script(), claim_script()):
        assert golden[script.name] == script.sha.decode()


@pytest.mark.parametrize("name", NAMES)
def test_every_script_declares_keys_of_the_table(name: str) -> None:
    """Kind and pattern of every declared key are those of the table; every section is filled in."""
    header = _header(name, (lua_dir() / f"{name}.lua").read_text())
    assert header["KEYS"]
    for kind, pattern in header["KEYS"]:
        assert KEYS[kind].pattern == pattern.split()[0]
    assert header["RETURNS"][0][0] == "0"


def test_every_kind_of_key_has_a_script_or_a_client() -> None:
    """No row of the table is left over: scripts declare it, or it is the store's own record."""
    declared = {k for n in NAMES for k, _ in _header(n, (lua_dir() / f"{n}.lua").read_text())["KEYS"]}
    assert set(KEYS) - declared == {"meta", "unknown", "census"}


def test_includes_are_flattened(tmp_path: Path) -> None:
    """What is sent holds the include's text, and a test's replacement in its place."""
    folder = written(tmp_path, GOOD)
    expected = {"keys": ("due",), "argv": ("lease_ms",), "returns": {0: "claimed"}, "folder": folder}
    assert b"-- the clock" in load("good", **expected).source  # type: ignore[arg-type]
    replaced = load("good", **expected, replace={"clock": "-- another"})  # type: ignore[arg-type]
    assert b"-- another" in replaced.source
    assert b"-- the clock" not in replaced.source


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("#!lua", "-- lua", "the first line must be #!lua"),
        ("-- good:", "-- bad:", "the second line must be"),
        ("   due ", "   dew ", "unknown"),
        (":~:due", ":due", "in store.keys"),
        ("lease_ms  ", "most  ", "ARGV"),
        ("0 claimed", "1 claimed", "RETURNS"),
        ("0 claimed", "0 taken", "RETURNS"),
    ],
)
def test_a_header_that_lies_stops_the_pod(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """Header, key table and caller must agree; the message says where they do not."""
    folder = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ScriptMismatchError, match=complaint):
        load("good", keys=("due",), argv=("lease_ms",), returns={0: "claimed"}, folder=folder)

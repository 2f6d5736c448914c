"""Scripts as data: headers that are held against key table and callers, golden SHAs."""

from pathlib import Path

import pytest

from router.installed_files import lua_dir
from router.store.decisions import decide_script
from router.store.key_kinds import KEYS
from router.store.scripts.flatten import ScriptMismatchError, flat, lines
from router.store.scripts.load import _header, load
from router.store.tasks.store import claim_script, settle_script
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
    header = _header(name, text=(lua_dir() / f"{name}.lua").read_text())
    assert header["KEYS"]
    for kind, pattern in header["KEYS"]:
        assert KEYS[kind].pattern == pattern.split()[0]
    assert header["RETURNS"][0][0] == "0"


def test_every_kind_of_key_has_a_script_or_a_client() -> None:
    """No row of the table is left over: scripts declare it, or a client writes it by itself."""
    declared = {k for n in NAMES for k, _ in _header(n, text=(lua_dir() / f"{n}.lua").read_text())["KEYS"]}
    assert set(KEYS) - declared == {"meta", "unknown", "census", "final", "wait"}


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
        (":~:due", ":due", "in store.key_kinds"),
        ("lease_ms  ", "most  ", "ARGV"),
        ("0 claimed", "1 claimed", "RETURNS"),
        ("0 claimed", "0 taken", "RETURNS"),
        ("how long", "layouts decide_row, nothing", "no layout nothing"),
    ],
)
def test_a_header_that_lies_stops_the_pod(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    """Header, key table and caller must agree; the message says where they do not."""
    folder = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ScriptMismatchError, match=complaint):
        load("good", keys=("due",), argv=("lease_ms",), returns={0: "claimed"}, folder=folder)


def test_a_sentence_may_go_on_after_a_layout(tmp_path: Path) -> None:
    """Only the plural `layouts` takes a list: a word after "layout claim," is prose."""
    folder = written(tmp_path, GOOD.replace("how long", "layout claim, then its length"))
    assert load("good", keys=("due",), argv=("lease_ms",), returns={0: "claimed"}, folder=folder).name == "good"


def expanded(folder: Path, *text: str, include: str = "") -> str:
    """A script of these lines, without its constants."""
    (folder / "include").mkdir()
    (folder / "include" / "more.lua").write_text(include)
    (folder / "it.lua").write_text("\n".join(text))
    return flat("it", folder, {}).strip()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("--- @locals claim", "local k_claim, claim_ms"),
        ("  --- @unpack claim row", "local k_claim, claim_ms = unpack('>HI4', row)"),
        ("--- @unpack claim row, at -> after", "local k_claim, claim_ms, after = unpack('>HI4', row, at)"),
        ("--- @unpack charge(k, id) row, 5", "local k, id = unpack('>Hxxc8', row, 5)"),
        ("--- @assign claim argv[1] -> at", "k_claim, claim_ms, at = unpack('>HI4', argv[1])"),
        ("--- @assign claim into c row", "c.k_claim, c.claim_ms = unpack('>HI4', row)"),
    ],
)
def test_lines_about_layouts_are_expanded(tmp_path: Path, line: str, code: str) -> None:
    """Fields are read under the names and by the widths of the table."""
    assert expanded(tmp_path, line) == code


def test_constants_of_layouts_are_written_out(tmp_path: Path) -> None:
    """Formats, sizes, offsets and named numbers, wherever they are used."""
    text = expanded(
        tmp_path,
        "--- @layout charge",
        "--- @names charge_options",
        "return CHARGE_FORMAT, CHARGE_SIZE, CHARGE_AT_OPTIONS, CHARGE_RECORDS",
    )
    assert text == "return '>HBBc8I4dd', 32, 3, 2"


def test_an_include_stands_where_it_is_named_first(tmp_path: Path) -> None:
    """Two files that need the same include get it once; each line keeps its origin."""
    text = expanded(tmp_path, "--- @include more", "--- @include more", "return x", include="local x = 1\n")
    assert text == "local x = 1\nreturn x"
    assert [(x.file, x.number) for x in lines("it", tmp_path, {})] == [("include/more.lua", 1), ("it.lua", 3)]


@pytest.mark.parametrize(
    "line",
    [
        "--- @layout nothing",
        "--- @names nothing",
        "--- @unknown claim",
        "--- @unpack claim(claim_ms, k_claim) row",
        "--- @unpack claim(lease_ms) row",
        "--- @unpack claim(k_claim) row -> at",
        "--- @unpack decide_row(tail) row",
        "--- @unpack claim",
    ],
)
def test_a_line_that_no_layout_knows_stops_the_pod(tmp_path: Path, line: str) -> None:
    """Wrong name, wrong order, half a layout, bytes that cannot be skipped: file and line are named."""
    with pytest.raises(ScriptMismatchError, match=r"lua/it\.lua:1"):
        expanded(tmp_path, line)

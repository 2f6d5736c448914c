"""Checks the Lua scripts with luacheck, as Redis gets them: `lint_lua.py`.

An include uses names of other files, so it is checked inside each script that it goes into. A finding is reported with
the file and line that it comes from; what is unused in an include counts when no script uses it. Without luacheck
(`make tools`) nothing is checked, which with CI=true is an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from router.store.scripts.flatten import Line, lines  # noqa: E402 - the checkout's own package

FOLDERS = (ROOT / "lua", ROOT / "bench")
MAX_LINES, MAX_FUNCTION_LINES = 250, 60
_FINDING = re.compile(r"(.+?):(\d+):(\d+): \(([EW]\d+)\) (.*)")
# Unused locals, arguments and values; of a table of constants or of a layout a script uses what it needs.
_UNUSED, _TABLES = ("W2", "W3"), ("names", "layout", "locals")
_TOO_LONG = "W631"


def luacheck() -> str | None:
    """The program, of `make tools` or on PATH."""
    return shutil.which("luacheck", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")


def findings(program: str, scripts: dict[str, list[Line]]) -> dict[str, dict[tuple[str, int, str], str]]:
    """What luacheck says of each script: (file, line, code and column) → message."""
    found: dict[str, dict[tuple[str, int, str], str]] = {name: {} for name in scripts}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in scripts.items():
            first, *rest = text
            # `#!` is read by Redis, not by Lua.
            Path(folder, name).write_text("".join(f"{x.text}\n" for x in (first._replace(text=""), *rest)))
        command = [
            program,
            "--config",
            str(ROOT / ".luacheckrc"),
            "--no-cache",
            "--formatter",
            "plain",
            "--codes",
            folder,
        ]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in run.stdout.splitlines():
        match = _FINDING.fullmatch(line)
        if match is None:
            raise SystemExit(f"luacheck said something unknown: {line}")
        name, code = Path(match[1]).name, match[4]
        origin = scripts[name][int(match[2]) - 1]
        if origin.instruction and (code == _TOO_LONG or (code.startswith(_UNUSED) and origin.instruction in _TABLES)):
            continue
        found[name][origin.file, origin.number, f"{code}:{match[3]}"] = match[5]
    if run.returncode > 1 and not any(found.values()):
        raise SystemExit(f"luacheck failed: {run.stderr or run.stdout}")
    return found


def complaints(program: str, folder: Path) -> list[str]:
    """What is to be mended in the scripts of a folder."""
    scripts = {p.name: lines(p.stem, folder, {}) for p in sorted(folder.glob("*.lua"))}
    by_script = findings(program, scripts)
    users = {
        file: {name for name, text in scripts.items() if any(x.file == file for x in text)}
        for file in {x.file for text in scripts.values() for x in text}
    }
    mended: dict[tuple[str, int, str], str] = {}
    for found in by_script.values():
        for place, message in found.items():
            everywhere = all(place in by_script[name] for name in users[place[0]])
            if everywhere or not place[2].startswith(_UNUSED):
                mended[place] = message
    shown = [
        f"{folder.name}/{file}:{number}: ({code.split(':')[0]}) {message}"
        for (file, number, code), message in sorted(mended.items())
    ]
    return [*shown, *(text for path in sorted(folder.rglob("*.lua")) for text in too_long(path))]


def too_long(path: Path) -> Iterator[str]:
    """A file or a function that has outgrown the reader."""
    text, place, begin = path.read_text().splitlines(), path.relative_to(ROOT), 0
    if len(text) > MAX_LINES:
        yield f"{place}: {len(text)} lines, more than {MAX_LINES}"
    for number, line in enumerate(text, 1):
        if line.startswith("local function"):
            begin = number
        if line == "end" and begin and number - begin >= MAX_FUNCTION_LINES:
            yield f"{place}:{begin}: a function of {number - begin + 1} lines, more than {MAX_FUNCTION_LINES}"


def main() -> int:
    """Prints what is to be mended."""
    program = luacheck()
    if program is None:
        print("Lua is not checked: luacheck is not there (make tools)")
        return 1 if os.environ.get("CI", "").lower() == "true" else 0
    shown = [text for folder in FOLDERS for text in complaints(program, folder)]
    print("\n".join(shown) or "luacheck: all scripts are fine")
    return 1 if shown else 0


if __name__ == "__main__":
    raise SystemExit(main())

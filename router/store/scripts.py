"""Lua scripts as data: loaded once, includes flattened, headers parsed and held against the Python that calls them.

A script file opens with `#!lua` and a header:

    -- decide: what it does in one line
    -- KEYS
    --   head     <schema>:{p}:<tenant>:head     key kinds of `store.keys.KEYS`, with their real pattern
    -- ARGV
    --   row      what it is, with units
    -- RETURNS
    --   0 admitted ...
    -- GUARANTEES
    --   free text

`--- @include name` is replaced by `lua/include/name.lua`.
"""

import re
from hashlib import sha1
from pathlib import Path

from msgspec import Struct

from router.resources import lua_dir
from router.store.keys import KEYS

_INCLUDE = re.compile(r"^--- @include (\w+)$", re.MULTILINE)
_SECTION = re.compile(r"^-- (KEYS|ARGV|RETURNS|GUARANTEES)$")
_ENTRY = re.compile(r"^--   (\S+)\s+(.*)$")


class ScriptMismatchError(Exception):
    """A script's header and its caller disagree: this build is broken, and the pod must not start."""


class Script(Struct, frozen=True):
    """One script, ready to send. `sha` is the SHA-1 that EVALSHA wants."""

    name: str
    source: bytes
    sha: bytes
    keys: dict[str, str]
    argv: tuple[str, ...]
    returns: dict[int, str]

    @property
    def version(self) -> str:
        """What names this very script in audit records."""
        return self.sha[:8].decode()


def load(
    name: str,
    *,
    keys: tuple[str, ...],
    argv: tuple[str, ...],
    returns: dict[int, str],
    folder: Path | None = None,
    replace: dict[str, str] | None = None,
) -> Script:
    """The script of that name, checked against what its caller expects of it.

    `replace` maps include names to other sources (a test's clock).

    :raises ScriptMismatchError: header, key table and caller disagree.
    """
    folder = folder or lua_dir()
    text = (folder / f"{name}.lua").read_text()
    text = _INCLUDE.sub(lambda m: _include(folder, m[1], replace or {}), text)
    header = _header(name, text)
    found_keys = {k: v.split()[0] for k, v in header["KEYS"]}
    problems = [
        f"KEYS {kind} is {pattern} in the script and {KEYS[kind].pattern if kind in KEYS else 'unknown'} in store.keys"
        for kind, pattern in found_keys.items()
        if kind not in KEYS or KEYS[kind].pattern != pattern
    ]
    found_argv = tuple(k for k, _ in header["ARGV"])
    found_returns = {int(k): v.split()[0] for k, v in header["RETURNS"]}
    for what, found, expected in (
        ("KEYS", tuple(found_keys), keys),
        ("ARGV", found_argv, argv),
        ("RETURNS", found_returns, returns),
    ):
        if found != expected:
            problems.append(f"{what}: the script says {found}, the caller {expected}")
    if problems:
        raise ScriptMismatchError(f"lua/{name}.lua: " + "; ".join(problems))
    source = text.encode()
    sha = sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name, source, sha, found_keys, found_argv, found_returns)


def _include(folder: Path, name: str, replace: dict[str, str]) -> str:
    return replace[name] if name in replace else (folder / "include" / f"{name}.lua").read_text()


def _header(name: str, text: str) -> dict[str, list[tuple[str, str]]]:
    lines = text.splitlines()
    if not lines[0].startswith("#!lua"):
        raise ScriptMismatchError(f"lua/{name}.lua: the first line must be #!lua")
    if not lines[1].startswith(f"-- {name}: "):
        raise ScriptMismatchError(f"lua/{name}.lua: the second line must be `-- {name}: what it does`")
    sections: dict[str, list[tuple[str, str]]] = {"KEYS": [], "ARGV": [], "RETURNS": [], "GUARANTEES": []}
    section: str | None = None
    for line in lines[2:]:
        if not line.startswith("--"):
            break
        if match := _SECTION.match(line):
            section = match[1]
        elif section is not None and section != "GUARANTEES" and (entry := _ENTRY.match(line)):
            sections[section].append((entry[1], entry[2]))
    return sections

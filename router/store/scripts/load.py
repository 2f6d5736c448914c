"""Lua scripts as data: loaded once, includes flattened, headers parsed and compared with the Python that calls them.

A script file opens with `#!lua` and a header:

    -- decide: what it does in one line
    -- KEYS
    --   head     <schema>:{p}:<tenant>:head     key kinds of `store.key_kinds.KEYS`, with their real pattern
    -- ARGV
    --   row      what it is, with units; `layout NAME` or `layouts NAME, NAME` names those of `store.scripts.layouts`
    -- RETURNS
    --   0 admitted ...
    -- GUARANTEES
    --   free text

`flatten` makes the text that is sent. A script whose first line has `name=<its name>` is a function library. It ends
with the function that is called, with keys and arguments. Redis creates the closures of a library once, when it loads
it, and those of a script in every call, which costs more than the rows of a small call. `flags=` are those of the
script or of the function.
"""

import re
from hashlib import sha1
from pathlib import Path

from msgspec import Struct, structs
from redis.exceptions import NoScriptError, ResponseError

from router.installed_files import lua_dir
from router.store.key_kinds import KEYS
from router.store.scripts.flatten import ScriptMismatchError, flat
from router.store.scripts.layouts import LAYOUTS

_FIRST_LINE = re.compile(r"#!lua( name=\w+)?(?: flags=([\w,-]+))?")
_SECTION = re.compile(r"^-- (KEYS|ARGV|RETURNS|GUARANTEES)$")
_LAYOUTS = re.compile(r"layout (\w+)|layouts (\w+(?:, \w+)*)")
_ENTRY = re.compile(r"^--   (\S+)\s+(.*)$")

# All scripts of the router begin with it.
LIBRARIES = "router_"


class Script(Struct, frozen=True):
    """One script, ready to send. `call` begins the command that runs it; `load` loads it on a node (a library; other
    scripts are loaded by EVAL).

    `sha` is the SHA-1 of the text, as EVALSHA needs it. The name of a library contains it, so that several versions can
    be loaded at once.
    """

    name: str
    source: bytes
    sha: bytes
    keys: dict[str, str]
    argv: tuple[str, ...]
    returns: dict[int, str]
    flags: bytes
    body: bytes
    call: tuple[bytes, bytes]
    load: tuple[str | bytes, ...] = ()

    @property
    def version(self) -> str:
        """The version of this script in audit records."""
        return self.sha[:8].decode()

    @property
    def library(self) -> bool:
        """Whether it is a function library."""
        return self.call[0] == b"FCALL"

    def missing(self, fault: object) -> bool:
        """Whether a node's error says that the script is not loaded, so nothing was executed."""
        if self.library:
            return isinstance(fault, ResponseError) and "Function not found" in str(fault)
        return isinstance(fault, NoScriptError)

    def without_functions(self) -> "Script":
        """The same script for servers that do not allow functions. Redis creates its closures in every call."""
        if not self.library:
            return self
        flags = b" flags=%b" % self.flags if self.flags else b""
        source = b"#!lua%b\nlocal function make() %b\nend\nreturn make()(KEYS, ARGV)\n" % (flags, self.body)
        return structs.replace(self, source=source, call=(b"EVALSHA", _sha(source)), load=())


def load(
    name: str,
    *,
    keys: tuple[str, ...],
    argv: tuple[str, ...],
    returns: dict[int, str],
    folder: Path | None = None,
    replace: dict[str, str] | None = None,
) -> Script:
    """Load the script of that name, and compare it with what its caller expects.

    `replace` maps include names to other sources (a test's clock).

    :raises ScriptMismatchError: header, key table and caller disagree.
    """
    text = flat(name, folder or lua_dir(), replace or {})
    header = _header(name, text=text)
    found_keys = {k: v.split()[0] for k, v in header["KEYS"]}
    problems = [
        f"KEYS {kind} is {pattern} in the script and {_pattern(kind)} in store.key_kinds"
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
    named = {
        x
        for _, text in (*header["ARGV"], *header["RETURNS"])
        for single, listed in _LAYOUTS.findall(text)
        for x in (single or listed).split(", ")
    }
    problems += [f"there is no layout {x} in store.layouts" for x in sorted(named - set(LAYOUTS))]
    if problems:
        raise ScriptMismatchError(f"lua/{name}.lua: " + "; ".join(problems))
    source, sha = text.encode(), _sha(text.encode())
    first = _FIRST_LINE.match(text)
    library, flags = first.groups() if first else (None, None)
    script = Script(
        name=name,
        source=source,
        sha=sha,
        keys=found_keys,
        argv=found_argv,
        returns=found_returns,
        flags=(flags or "").encode(),
        body=text.split("\n", 1)[1].encode(),
        call=(b"EVALSHA", sha),
    )
    return _as_library(script) if library else script


def _pattern(kind: str) -> str:
    return KEYS[kind].pattern if kind in KEYS else "unknown"


def _sha(source: bytes) -> bytes:
    return sha1(source, usedforsecurity=False).hexdigest().encode()


def _as_library(script: Script) -> Script:
    known_as = b"%b%b_%b" % (LIBRARIES.encode(), script.name.encode(), script.sha)
    # A library may not use the API while it is loaded, so it creates its function at the first call.
    source = (
        b"#!lua name=%b\nlocal made local function make() %b\nend\n"
        b"redis.register_function{function_name='%b', flags={%b}, callback=function(keys, args)\n"
        b"made = made or make() return made(keys, args) end}\n"
    ) % (known_as, script.body, known_as, b",".join(b"'%b'" % flag for flag in script.flags.split(b",") if flag))
    load_by = ("FUNCTION", "LOAD", "REPLACE", source)
    return structs.replace(script, source=source, call=(b"FCALL", known_as), load=load_by)


def _header(name: str, *, text: str) -> dict[str, list[tuple[str, str]]]:
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

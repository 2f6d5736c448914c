"""The text of a script as Redis receives it: includes are inserted, layout instructions expanded, constants replaced by
their values.

A line that begins with `--- @` is an instruction. It has the indentation of the code around it:

    --- @include NAME                     the text of lua/include/NAME.lua, where it is named first
    --- @names NAME                       the constants of layouts.NAMES
    --- @layout NAME                      constants: NAME_FORMAT, NAME_SIZE (of the head), NAME_AT_<FIELD> (from 0)
    --- @locals NAME                      declares a local for each field
    --- @unpack NAME ARGS -> NEXT         declares such locals and reads them: `local a, b, NEXT = unpack(FORMAT, ARGS)`
    --- @unpack NAME(a, c) ARGS           reads some fields and skips the others; then there is no NEXT
    --- @assign NAME ARGS -> NEXT         reads into variables that are declared
    --- @assign NAME into TABLE ARGS -> NEXT  reads into fields of a table

NAME is of `layouts.LAYOUTS`. ARGS are those of Lua's struct.unpack behind the format: the string, then where to begin.
NEXT (optional) is the variable for the position after the fields that were read. The script's own `unpack` is
struct.unpack.

Lua 5.1 has no constants: a local that a function uses is an upvalue, of which it may have sixty. So the values of
top-level locals in capitals that are a number or a string are written into the code where they are used.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from router.store.scripts.layouts import LAYOUTS, NAMES

_INSTRUCTION = re.compile(r"( *)--- @(\w+) (.*)")
_READ = re.compile(r"(\w+)(?:\((\w+(?:, \w+)*)\))?(?: into (\w+))? ([^()]+?)(?: -> (\w+))?")
_VALUE = r"(?:-?\d+(?:\.\d+)?|'[^'\n]*')"
_CONSTANTS = re.compile(rf"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ({_VALUE}(?:, {_VALUE})*)$", re.MULTILINE)
_TOKEN = re.compile(r"'(?:\\.|[^'\\\n])*'|--[^\n]*|\b[A-Z][A-Z0-9_]*\b")


class ScriptMismatchError(Exception):
    """A script disagrees with its caller or with a layout: this build is broken, and the pod must not start."""


class Line(NamedTuple):
    """A line of a script; the file below lua/ and the number there that it is from, and the instruction, if any."""

    text: str
    file: str
    number: int
    instruction: str = ""


def flat(name: str, folder: Path, replace: Mapping[str, str]) -> str:
    """The text of a script. `replace` maps includes to other texts.

    :raises ScriptMismatchError: an instruction cannot be followed.
    """
    return _with_constants("".join(f"{line.text}\n" for line in lines(name, folder, replace)))


def lines(name: str, folder: Path, replace: Mapping[str, str]) -> list[Line]:
    """The text before constants are replaced, with the origin of every line.

    :raises ScriptMismatchError: an instruction cannot be followed.
    """
    return list(_expanded(f"{name}.lua", folder, replace, set()))


def _expanded(file: str, folder: Path, replace: Mapping[str, str], included: set[str]) -> Iterator[Line]:
    include = file.removeprefix("include/").removesuffix(".lua")
    text = replace[include] if file.startswith("include/") and include in replace else (folder / file).read_text()
    for number, line in enumerate(text.splitlines(), 1):
        found = _INSTRUCTION.fullmatch(line)
        if found is None:
            yield Line(line, file, number)
            continue
        indent, what, rest = found.groups()
        if what == "include":
            if rest not in included:
                included.add(rest)
                yield from _expanded(f"include/{rest}.lua", folder, replace, included)
            continue
        try:
            code = _INSTRUCTIONS[what](rest)
        except (KeyError, ValueError) as fault:
            raise ScriptMismatchError(f"lua/{file}:{number}: {line.strip()}: {fault}") from fault
        yield Line(indent + code, file, number, what)


def _names(name: str) -> str:
    return _constants(NAMES[name])


def _layout(name: str) -> str:
    layout, of = LAYOUTS[name], name.upper()
    numbers = {f"{of}_AT_{field.upper()}": at for field, at in layout.offsets.items()}
    return _constants({f"{of}_FORMAT": f"'{layout.lua()}'", f"{of}_SIZE": layout.size} | numbers)


def _constants(values: Mapping[str, object]) -> str:
    return f"local {', '.join(values)} = {', '.join(map(str, values.values()))}"


def _locals(name: str) -> str:
    return f"local {', '.join(LAYOUTS[name].widths)}"


def _unpack(rest: str) -> str:
    return f"local {_assign(rest)}"


def _assign(rest: str) -> str:
    found = _READ.fullmatch(rest)
    if found is None:
        raise ValueError("not of the form NAME(FIELDS) into TABLE ARGS -> NEXT")
    name, some, table, arguments, after = found.groups()
    layout = LAYOUTS[name]
    fields = some.split(", ") if some else list(layout.widths)
    if some and fields != [f for f in layout.widths if f in fields]:
        raise ValueError(f"fields are not those of the layout, in its order: {some}")
    if some and after:
        raise ValueError("-> is of all fields")
    targets = [f"{table}.{f}" if table else f for f in fields] + ([after] if after else [])
    return f"{', '.join(targets)} = unpack('{layout.lua(fields)}', {arguments})"


_INSTRUCTIONS = {"names": _names, "layout": _layout, "locals": _locals, "unpack": _unpack, "assign": _assign}


def _with_constants(text: str) -> str:
    """Constants replaced by their values; lines keep their numbers."""
    values: dict[str, str] = {}

    def take(found: re.Match[str]) -> str:
        values.update(zip(found[1].split(", "), re.findall(_VALUE, found[2]), strict=True))
        return ""

    text = _CONSTANTS.sub(take, text)
    return _TOKEN.sub(lambda found: values.get(found[0], found[0]), text)

"""One layout of packed fields: their widths, and the structs that pack and read them in Python and Lua.

Widths, all big-endian: B, H, I4 are unsigned integers of 1, 2 and 4 bytes, d is a double, cN is N bytes; Bc0, Hc0 and
I4c0 are bytes after their length; c0 is bytes whose length another field gives.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from struct import Struct as Binary

_WIDTH = re.compile(r"(B|H|I4|d|c[1-9]\d*)?(c0)?")
_CODES = {"B": "B", "H": "H", "I4": "I", "d": "d"}


class Layout:
    """A layout: fields as name=(width, meaning), in their order, and the structs that pack and read them."""

    def __init__(self, **fields: tuple[str, str]) -> None:
        self.widths = {name: width for name, (width, _) in fields.items()}
        self.meanings = {name: meaning for name, (_, meaning) in fields.items()}
        if unknown := {name: width for name, width in self.widths.items() if not _WIDTH.fullmatch(width)}:
            raise ValueError(f"unknown widths: {unknown}")

    @cached_property
    def head(self) -> Binary:
        """The fields up to the first that is bytes of any length; of that one its length."""
        return self.joined()

    @cached_property
    def size(self) -> int:
        """Bytes of the head."""
        return self.head.size

    def joined(self, first: str | None = None, last: str | None = None) -> Binary:
        """As `head`, where the fields from `first` to `last` are packed already: bytes."""
        codes, inside = ">", False
        for name, width in self._head():
            if name == first:
                codes, inside = f"{codes}{self.only(name, str(last)).size}s", True
            if not inside:
                codes += _code(width)
            inside = inside and name != last
        return Binary(codes)

    def only(self, first: str, last: str) -> Binary:
        """The fields from `first` to `last`."""
        names = list(self.widths)
        chosen = names[names.index(first) : names.index(last) + 1]
        return Binary(">" + "".join(_code(self.widths[n]) for n in chosen))

    def at(self, name: str) -> int:
        """Where a field of the head begins, counted from 0."""
        names = list(self.widths)
        return self.only(names[0], names[names.index(name) - 1]).size if name != names[0] else 0

    def lua(self, fields: Iterable[str] = ()) -> str:
        """The format for Lua's struct: all fields, or some, and the bytes between them skipped."""
        wanted = set(fields) or set(self.widths)
        if unknown := wanted - set(self.widths):
            raise KeyError(f"no field {', '.join(sorted(unknown))}")
        last = [n for n in self.widths if n in wanted][-1]
        found = ">"
        for name, width in self.widths.items():
            if name not in wanted and width.endswith("c0"):
                raise KeyError(f"{name} has no fixed size: it cannot be skipped")
            found += width if name in wanted else "x" * Binary(f">{_code(width)}").size
            if name == last:
                break
        return found

    @property
    def offsets(self) -> dict[str, int]:
        """Where the fields of the head begin."""
        return {name: self.at(name) for name, _ in self._head()}

    def _head(self) -> Iterable[tuple[str, str]]:
        for name, width in self.widths.items():
            if width == "c0":
                return
            yield name, width
            if width.endswith("c0"):
                return


def _code(width: str) -> str:
    fixed = width.removesuffix("c0")
    return f"{fixed[1:]}s" if fixed.startswith("c") else _CODES[fixed]

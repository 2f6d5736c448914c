"""Packed rows, read back by the names that `store.scripts.layouts` gives their fields."""

from struct import Struct as Binary
from typing import Any

from router.store.scripts import layouts
from router.store.scripts.layout import Layout

_LENGTHS = {"B": Binary(">B"), "H": Binary(">H"), "I4": Binary(">I")}
Fields = dict[str, Any]


def fields(layout: Layout, raw: bytes, at: int = 0) -> tuple[Fields, int]:
    """Every field by its name, and the position behind the last."""
    found: Fields = {}
    for name, width in layout.widths.items():
        if width.endswith("c0"):
            length = _LENGTHS[width.removesuffix("c0")]
            begin = at + length.size
            at = begin + length.unpack_from(raw, at)[0]
            found[name] = raw[begin:at]
        else:
            one = layout.only(name, name)
            (found[name],) = one.unpack_from(raw, at)
            at += one.size
    return found, at


def several(layout: Layout, count: int, raw: bytes, at: int) -> tuple[list[Fields], int]:
    """So many of one layout, one behind the other."""
    found: list[Fields] = []
    for _ in range(count):
        one, at = fields(layout, raw, at)
        found.append(one)
    return found, at


def parts(flagged: dict[int, Layout], flags: int, raw: bytes, at: int) -> tuple[Fields, int]:
    """The fields of all optional parts whose flag is set."""
    found: Fields = {}
    for flag, layout in flagged.items():
        if flags & flag:
            part, at = fields(layout, raw, at)
            found |= part
    return found, at


def decide_row(raw: bytes) -> Fields:
    """A decide row: its fields and those of its optional parts, `charges`, and `candidates` with their own charges."""
    row, at = fields(layouts.DECIDE_ROW, raw)
    row["charges"], at = several(layouts.CHARGE, row["n_charges"], raw, at)
    row["candidates"] = []
    for _ in range(row["n_candidates"]):
        candidate, at = fields(layouts.CANDIDATE, raw, at)
        candidate["charges"], at = several(layouts.CHARGE, candidate["n_charges"], raw, at)
        row["candidates"].append(candidate)
    assert at == len(raw) - row["extra_bytes"]
    flagged = {
        layouts.ROW_CLAIM: layouts.CLAIM,
        layouts.ROW_MESSAGE: layouts.MESSAGE,
        layouts.ROW_FAILED: layouts.FAILED,
        layouts.ROW_STEPS: layouts.STEPS,
    }
    more, at = parts(flagged, row["flags"], raw, at)
    assert at == len(raw)
    return row | more


def settle_row(raw: bytes) -> Fields:
    """A settle row: its fields and those of its optional parts, `corrections` and `leases`."""
    row, at = fields(layouts.SETTLE_ROW, raw)
    row["corrections"], at = several(layouts.CORRECTION, row["n_corrections"], raw, at)
    row["leases"], at = several(layouts.LEASE, row["n_leases"], raw, at)
    assert at == len(raw) - row["extra_bytes"]
    flagged = {
        layouts.SETTLE_BREAKER: layouts.BREAKER,
        layouts.SETTLE_FIGURES: layouts.FIGURES,
        layouts.SETTLE_MARK: layouts.MARK,
    }
    more, at = parts(flagged, row["flags"], raw, at)
    assert at == len(raw)
    return row | more

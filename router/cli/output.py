"""Tables for people, JSON for machines."""

import sys
from collections.abc import Iterable, Sequence

import orjson


def print_json(value: object) -> None:
    """One JSON document on standard output, indented only for a terminal."""
    indent = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    sys.stdout.write(orjson.dumps(value, option=indent | orjson.OPT_SORT_KEYS).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; None shows as nothing, other values as their text. No markup is read in values."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    Console(highlight=False).print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; None is left out."""
    shown = [(name, value) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


def note(text: str) -> None:
    """A remark for people, on standard error."""
    sys.stderr.write(text + "\n")

"""Tables for people, JSON for machines."""

import sys
from collections.abc import Iterable, Sequence

import orjson

FILE_WIDTH = 160


def print_json(value: object) -> None:
    """One JSON document on standard output, indented only for a terminal."""
    indent = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    sys.stdout.write(orjson.dumps(value, option=indent | orjson.OPT_SORT_KEYS).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, whole: Sequence[str] = ()) -> None:
    """Print a table. None is an empty cell; columns named in `whole` are not wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    console.print(table)


def print_line(text: str) -> None:
    """Print one line, however long."""
    sys.stdout.write(text + "\n")


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one per line; lists and objects as JSON. None is left out."""
    shown = [(name, value) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        text = orjson.dumps(value).decode() if isinstance(value, dict | list) else value
        sys.stdout.write(f"{name:<{width}}  {text}\n")


def note(text: str) -> None:
    """Print a remark for people on standard error."""
    sys.stderr.write(text + "\n")

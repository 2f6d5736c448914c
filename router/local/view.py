"""Terminal output: progress while the fleet starts and is proven, then the proof as a table."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.table import Table

from router.local.proof import Step

FILE_WIDTH = 132


class View:
    """Progress and failures go to standard error, the table and the READY line to standard output."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        if not self._out.is_terminal:
            self._out.width = FILE_WIDTH
        self._err = Console(stderr=True, highlight=False)
        self._status: Status | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Until `pause`, `say` moves a spinner (on a terminal) or prints a line (elsewhere)."""
        if self._err.is_terminal:
            self._status = self._err.status("…")
            self._status.start()
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """End the spinner; from here on `say` prints lines."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        """One line of progress."""
        if self._status is not None:
            self._status.update(text)
        else:
            self._err.print(text, markup=False, soft_wrap=True)

    def step(self, text: str) -> None:
        """Progress within a step; only a spinner shows it."""
        if self._status is not None:
            self._status.update(text)

    def proof(self, steps: list[Step]) -> None:
        """The proof as a table, a failed step in red."""
        table = Table(title="Seen to happen, through a plain NATS client", title_justify="left")
        table.add_column("tenant")
        table.add_column("step")
        table.add_column("seen", overflow="fold")
        table.add_column("ms", justify="right")
        for step in steps:
            style = None if step.ok else "bold red"
            table.add_row(step.tenant, step.name, step.seen, f"{step.ms:.1f}", style=style)
        self._out.print(table, markup=False)

    def line(self, text: str) -> None:
        """Print one line for programs and flush, whatever the width of the terminal."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def failure(self, text: str) -> None:
        """Print why the fleet ends."""
        self._err.print(text, style="red", markup=False, soft_wrap=True)

"""A clock that a test moves, for servers and pods that it starts: `MovedClock`, by libfaketime."""

import os
from pathlib import Path

from tests.servers import missing

LIBRARY = Path(__file__).parents[1] / ".tools" / "libfaketime.so.1"


class MovedClock:
    """`env` goes to the process; it sees its wall clock moved by `move`. Monotonic clocks stay as they are."""

    def __init__(self, folder: Path) -> None:
        if not LIBRARY.exists():
            missing("libfaketime", "make tools")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "clock"
        self.move(0)

    @property
    def env(self) -> dict[str, str]:
        """For the process whose clock it is."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: float) -> None:
        """From now on the process's clock is so far ahead of the true one (negative: behind)."""
        half = self._file.with_name("clock.new")
        half.write_text(f"{seconds:+.3f}")
        os.replace(half, self._file)

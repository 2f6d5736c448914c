"""The committed counts, the build that they belong to, and what two counts say of each other."""

import json
import platform
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from bench.count.callgrind import HASH_SEED, ROOT, Counts
from bench.processes import server_binary, server_version

FILE = Path(__file__).with_name("figures.json")
TOLERANCE = 1.03
"""A count that grows by more fails."""


class Grown(Struct, frozen=True):
    """One load, before and after, in instructions per decision."""

    load: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After ÷ before."""
        return self.after / self.before

    @property
    def holds(self) -> bool:
        """Whether it costs no more than the tolerance allows."""
        return self.ratio <= TOLERANCE


def compare(before: Counts, after: Counts) -> list[Grown]:
    """Every load that both have, in the order of `after`."""
    return [Grown(load, before[load], count) for load, count in after.items() if load in before]


def build() -> dict[str, str]:
    """What the counts depend on besides the code: counts of two builds cannot be compared."""
    return {
        "python": f"{sys.version} {platform.machine()}",
        "server": server_version(server_binary()),
        "libc": " ".join(platform.libc_ver()),
        "avx2": "yes" if "avx2" in _cpu_flags() else "no",
        "PYTHONHASHSEED": HASH_SEED,
    }


def _cpu_flags() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split() for line in lines if line.startswith("flags")), [])


def committed() -> tuple[dict[str, str], Counts]:
    """The build and the counts of the file."""
    document = json.loads(FILE.read_text())
    return document["build"], document["instructions"]


def write(counts: Counts) -> None:
    """Write the file anew."""
    document = {"build": build(), "instructions": {load: round(count) for load, count in counts.items()}}
    FILE.write_text(json.dumps(document, indent=2) + "\n")


def base() -> str | None:
    """The commit that wrote the counts; None: the history does not have it."""
    command = ["git", "log", "-1", "--format=%H", "--", str(FILE.relative_to(ROOT))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    commit = done.stdout.strip()
    shallow = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    # In a shallow clone git takes its oldest commit for the author of everything.
    return commit if commit and shallow.stdout.strip() == "false" else None

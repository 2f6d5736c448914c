"""The load generator's command lines: loadgen.c when this machine can compile it, its Python stand-in when not."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

from bench.processes import HOST, BenchFailed

OK = '"ok":true'
_SOURCE = Path(__file__).with_name("loadgen.c")
_CONNECTIONS = 4


class Generator:
    """Makes commands for `bench.measure.measure`; every one has request ids of its own."""

    def __init__(self, program: list[str], nats_port: int, templates: Path, *, native: bool) -> None:
        self._program = program
        self._port = str(nats_port)
        self._templates = str(templates)
        self._runs = itertools.count(1)
        self.native = native

    @classmethod
    def build(cls, folder: Path, nats_port: int, templates: Path) -> Self:
        """Compile the C client into `folder`; without a compiler, the Python client, which may itself be the limit.

        :raises BenchFailed: there is a compiler and it does not take the source.
        """
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
        if compiler is None:
            return cls([sys.executable, "-m", "bench.pyclient"], nats_port, templates, native=False)
        binary = folder / "loadgen"
        done = subprocess.run(
            [compiler, "-O2", "-o", str(binary), str(_SOURCE)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchFailed(f"{compiler} does not compile loadgen.c:\n{done.stderr}")
        return cls([str(binary)], nats_port, templates, native=True)

    def closed(self, subject: str, outstanding: int, warmup_s: float, measure_s: float, expect: str = OK) -> list[str]:
        """`outstanding` requests under way all the time."""
        return self._load("closed", subject, outstanding, warmup_s, measure_s, expect)

    def open(self, subject: str, rate: int, warmup_s: float, measure_s: float, expect: str = OK) -> list[str]:
        """`rate` requests a second, whatever comes back; latency from the moment each was due."""
        return self._load("open", subject, rate, warmup_s, measure_s, expect)

    def echo(self, subject: str) -> list[str]:
        """A responder that answers with the request, to see what the NATS server itself can do; for `native` only."""
        return [*self._program, HOST, self._port, "echo", subject]

    def next_id_base(self) -> int:
        """The first of 2⁴⁰ request ids that nobody else uses."""
        return next(self._runs) << 40

    def _load(self, mode: str, subject: str, amount: int, warmup_s: float, measure_s: float, expect: str) -> list[str]:
        connections = max(1, min(_CONNECTIONS, amount if mode == "closed" else _CONNECTIONS))
        return [
            *(*self._program, HOST, self._port, mode, subject, self._templates, str(connections), str(amount)),
            *(f"{warmup_s * 1000:.0f}", f"{measure_s * 1000:.0f}", f"{self.next_id_base():x}", expect),
        ]
